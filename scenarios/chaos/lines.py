"""The lines between the nodes and the embedded broker: one for each node, through a proxy that can trouble it."""

from collections.abc import Iterable
from pathlib import Path

from broker.server import EmbeddedServer
from scenarios.chaos.faults import Fault
from scenarios.chaos.proxy import Proxy
from scenarios.places import COORDINATOR, SERVICES

_KINDS = ("partition", "delay", "narrow")


def need_lines(faults: Iterable[Fault]) -> bool:
    """Whether any of them troubles the network."""
    return any(fault.kind in _KINDS for fault in faults)


class Lines:
    """`url_files` are where each node finds the broker's URL, which leads through its own line; of mode 0600."""

    def __init__(self, data: Path) -> None:
        self.url_files = {node: data / f"{node}.url" for node in (COORDINATOR, SERVICES)}
        self._proxies = {node: Proxy() for node in self.url_files}

    async def start(self, server: EmbeddedServer) -> None:
        """Lead to a server that has been started. Raises OSError or BrokerError."""
        for node, proxy in self._proxies.items():
            await proxy.start(server.host, server.port)
            server.write_url(self.url_files[node], port=proxy.port)

    def __getitem__(self, node: str) -> Proxy:
        return self._proxies[node]

    def each(self) -> list[Proxy]:
        return list(self._proxies.values())

    def mend(self, node: str) -> None:
        """End what swallows or cuts a line, and leave it as slow and as narrow as it is."""
        proxy = self._proxies[node]
        latency_seconds, bytes_per_second = proxy.latency_seconds, proxy.bytes_per_second
        proxy.heal()
        proxy.latency_seconds, proxy.bytes_per_second = latency_seconds, bytes_per_second

    def heal(self) -> None:
        """End every fault. Raises OSError if another process has taken the port of a line that was cut."""
        for proxy in self.each():
            proxy.heal()

    async def close(self) -> None:
        for proxy in self.each():
            await proxy.close()
