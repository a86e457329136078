"""A hostile client of the broker: what it publishes is set aside or harmless, whatever it is."""

import asyncio
import subprocess
from collections import Counter, defaultdict
from itertools import islice
from random import Random

from actors.messages import MessageError, Reply, from_envelope, to_envelope
from actors.state import Outcome, Verb
from broker import codec
from scenarios.chaos.garbage import Garbage
from scenarios.chaos.hostile import Hostile
from scenarios.held_directory import URL_FILE
from scenarios.serving import Access
from scenarios.shop.domain import SHOP
from tests.scenarios.conftest import Sim, until_under_way

UNREADABLE = {"impossible", "nested", "oversized"}
READABLE = {"repeat", "unknown", "future", "misdirected"}


def garbage(seed: int) -> Garbage:
    """One that has heard of a saga."""
    drawn = Garbage(SHOP, Random(seed))
    reply = Reply("0199f3a1b2c3-r1", "reserve", Verb.DO, 0, 1, Outcome.DONE, None, 1)
    drawn.hear("saga.reply.main", codec.join([codec.encode_envelope(to_envelope(reply))]))
    return drawn


def is_readable(payload: bytes) -> bool:
    """Whether all of it can be read. Only these two errors may ever come of it."""
    try:
        for envelope in codec.decode(payload):
            from_envelope(envelope)
    except (codec.CodecError, MessageError):
        return False
    return True


def test_garbage_is_what_it_says() -> None:
    """Each kind is drawn; what is unreadable raises the errors of bad bytes and no others; the rest can be read."""
    source = garbage(seed=1)
    readable: defaultdict[str, set[bool]] = defaultdict(set)
    for shout in (source.draw() for _ in range(3000)):
        readable[shout.kind].add(is_readable(shout.payload))
    assert readable.keys() == Garbage.KINDS.keys()
    assert {kind for kind in readable if readable[kind] == {False}} >= UNREADABLE
    assert {kind for kind in readable if readable[kind] == {True}} >= READABLE


def test_garbage_repeats_by_its_seed() -> None:
    """One seed draws the same messages, another one others."""
    first, again, other = (list(islice(iter(garbage(seed).draw, None), 300)) for seed in (1, 1, 2))
    assert first == again != other


def test_garbage_about_a_saga_under_way_is_none_that_could_be_true() -> None:
    """A reply from the future names a round that its saga has not come to, or a step that it does not have."""
    source = garbage(seed=3)
    for shout in (source.draw() for _ in range(2000)):
        if shout.kind == "future":
            [reply] = map(from_envelope, codec.decode(shout.payload))
            assert isinstance(reply, Reply)
            assert reply.round >= 1000 or reply.step == "nobody"


async def harm(run: subprocess.Popen[str], access: Access) -> Counter[str]:
    """Be hostile until a run has ended, or for long enough."""
    hostile = Hostile(SHOP, seed=1, per_second=300)
    await hostile.start(access)
    while run.poll() is None and hostile.sent.total() < 500:
        await asyncio.sleep(0.05)
    await hostile.close()
    return hostile.sent


def test_a_hostile_client_changes_nothing_but_the_count_of_dead_letters(sim: Sim) -> None:
    """Each order ends as it must, once; nothing is parked, no service has noted anything; no log has a traceback."""
    data = sim.home / "data"
    arguments = ("run", "mixed", "--orders", "1500", "--seed", "6", "--plain", "--data", str(data))
    run = sim.start(*arguments, "--json", str(sim.home / "result.json"))
    until_under_way(data, run)
    sent = asyncio.run(harm(run, Access((data / URL_FILE).read_text().strip())))
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert sent.keys() == Garbage.KINDS.keys()
    result = sim.result()
    assert (result["verdict"], result["lost"], result["duplicate_effects"]) == ("passed", 0, 0)
    assert result["dead_letters"] > 0
    assert result["counters"]["coordinator_dead_letters"] > 0
    assert result["counters"]["services_dead_letters"] > 0
    checked = sim("check", str(data))
    assert checked.returncode == 0, checked.stdout
    assert not any("Traceback" in log.read_text() for log in (data / "logs").iterdir())
