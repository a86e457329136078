"""A nats-server that is not ours: started by the tests, with each way of letting us in."""

import base64
import hashlib
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import nkeys  # type: ignore[import-untyped]  # it has no types

from broker.server import find_binary

TLS = Path(__file__).parent / "tls"
START_TIMEOUT_SECONDS = 15.0


def binaries() -> dict[str, Path]:
    """The servers to test against: the packaged one, and an old one where the environment names it."""
    found = {"packaged": find_binary()}
    old = os.environ.get("SAGASIM_OLD_NATS_SERVER")
    if old:
        found["old"] = Path(old)
    return found


@dataclass
class Outside:
    """One server process. `arguments` are what the command line needs to get in."""

    process: subprocess.Popen[bytes]
    arguments: list[str] = field(default_factory=list)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


def start(binary: Path, home: Path, access: str) -> Outside:
    """Start a server with JetStream that asks for `access`: a password, tls (and a password), or creds."""
    port = _unused_port()
    words, arguments = _ACCESS[access](home, port)
    jetstream = f'jetstream {{\n  store_dir: "{home / "outside"}"\n}}\n'
    return Outside(_start(binary, home, port, jetstream + words), arguments)


def start_with(home: Path, words: str) -> tuple[Outside, int]:
    """Start a server that lets everybody in, with these words in its configuration; and its port."""
    port = _unused_port()
    return Outside(_start(find_binary(), home, port, words)), port


def _unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _start(binary: Path, home: Path, port: int, words: str) -> subprocess.Popen[bytes]:
    config = home / "outside.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\n{words}\n')
    with (home / "outside.log").open("wb") as log:
        process = subprocess.Popen([binary, "--config", config], stdout=log, stderr=log)
    _wait_until_it_listens(port, process, home / "outside.log")
    return process


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError(f"the server did not listen:\n{log.read_text()}")


def _password(_home: Path, port: int) -> tuple[str, list[str]]:
    words = 'authorization { user: "shop", password: "s3cret" }'
    return words, ["--nats", f"nats://shop:s3cret@127.0.0.1:{port}"]


def _tls(home: Path, port: int) -> tuple[str, list[str]]:
    words, _ = _password(home, port)
    words += f'\ntls {{ cert_file: "{TLS / "server.pem"}", key_file: "{TLS / "server.key"}" }}'
    return words, ["--nats", f"tls://shop:s3cret@127.0.0.1:{port}", "--tls-ca", str(TLS / "ca.pem")]


def _creds(home: Path, port: int) -> tuple[str, list[str]]:
    """An operator, an account with JetStream, and a user, as `nsc` would make them."""
    keys = [nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix)) for prefix in _PREFIXES]
    operator, account, user, _ = keys
    names = [key.public_key.decode() for key in keys]
    limits = {"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1, "leaf": -1}
    limits |= {"wildcards": True}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    operator_jwt = _jwt(operator, names[0], names[0], {"type": "operator"})
    account_jwt = _jwt(operator, names[0], names[1], {"type": "account", "limits": limits | storage})
    free = {"type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {}}
    user_jwt = _jwt(account, names[1], names[2], free)
    creds = home / "user.creds"
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    system_jwt = _jwt(operator, names[0], names[3], {"type": "account", "limits": limits})
    words = f"operator: {operator_jwt}\nsystem_account: {names[3]}\nresolver: MEMORY\n"
    words += f"resolver_preload: {{ {names[1]}: {account_jwt}, {names[3]}: {system_jwt} }}"
    return words, ["--nats", f"nats://127.0.0.1:{port}", "--creds", str(creds)]


def _jwt(signer: nkeys.KeyPair, issuer: str, subject: str, claims: dict[str, object]) -> str:
    body = {"iss": issuer, "sub": subject, "iat": int(time.time()), "name": "test", "nats": claims | {"version": 2}}
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode().rstrip("=")
    text = ".".join(_base64(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body))
    return f"{text}.{_base64(signer.sign(text.encode()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


_PREFIXES = (
    nkeys.PREFIX_BYTE_OPERATOR,
    nkeys.PREFIX_BYTE_ACCOUNT,
    nkeys.PREFIX_BYTE_USER,
    nkeys.PREFIX_BYTE_ACCOUNT,
)
_ACCESS = {"password": _password, "tls": _tls, "creds": _creds}
