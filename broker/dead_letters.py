"""What cannot be processed is set aside with its reason, so that it neither stops a consumer nor vanishes."""

import logging
from typing import Final

from broker import subjects
from broker.batching import Batcher
from broker.codec import SCHEMA_VERSION
from broker.receipt import Receipt

logger = logging.getLogger("sagasim.broker")

DEAD: Final = "dead"
MAX_REASON_CHARACTERS: Final = 1000
MAX_RAW_BYTES: Final = 4096
"""How much of the offending bytes a dead letter keeps: enough to recognise them by."""


def dead_letter(
    batcher: Batcher, origin: str, reason: str, subject: str, raw: bytes, receipt: Receipt | None = None
) -> None:
    """Publish `[version, "dead", reason, subject, raw, length of raw in bytes]` to `saga.dead.<origin>`.

    Lets go of one hold of the receipt: the delivery is acknowledged once the dead letter is stored.
    """
    logger.warning("%s: a message on %s becomes a dead letter: %s", origin, subject, reason)
    envelope = (SCHEMA_VERSION, DEAD, reason[:MAX_REASON_CHARACTERS], subject, raw[:MAX_RAW_BYTES], len(raw))
    batcher.send(subjects.dead(origin), envelope, receipt)
    if receipt is not None:
        receipt.release()
