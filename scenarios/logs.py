"""Logging of a node: lines for people or for machines. Each line about a saga carries its id, step and attempt."""

import json
import logging
import re
from pathlib import Path

FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FIELDS = ("saga_id", "step", "attempt")
_TAIL_BYTES = 64 * 1024  # of a log, in which its latest warning is looked for
_MAX_WARNING_CHARS = 300
_WARNS = ("WARNING", "ERROR", "CRITICAL")
_WARNING = re.compile(rf"[-\d]+ [:,\d]+ (?:{'|'.join(_WARNS)}) +[\w.]+: (.+)")  # as `set_up` has it written


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (seconds since 1970), level, logger, message, and what the record is about."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": round(record.created, 6),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _FIELDS:
            value = getattr(record, name, None)
            if value:
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _LogFile(logging.FileHandler):
    """A log whose disk is full loses lines, and nothing else: that is the store's to report."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        """Say nothing: logging itself would print a traceback for each line."""


def set_up(path: Path | None, *, level: str = "INFO", form: str = "text") -> None:
    """Send this process's log to a file, or to standard error."""
    handler = logging.StreamHandler() if path is None else _LogFile(path)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    for name, least in (("sagasim", level), ("asyncio", "ERROR"), ("opentelemetry", "ERROR")):
        logger = logging.getLogger(name)
        logger.setLevel(least)
        logger.addHandler(handler)
        logger.propagate = False


def latest_warning(path: Path) -> str:
    """The message of the last line of a log that warns, in either format; "" if none of its last 64 KiB does."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next(filter(None, map(_warning, reversed(lines))), "")[:_MAX_WARNING_CHARS]


def _warning(line: str) -> str:
    """What a line of a log warns of; "" if it does not."""
    if found := _WARNING.match(line):
        return found[1]
    try:
        record = json.loads(line)
        return str(record["message"]) if record["level"] in _WARNS else ""
    except (ValueError, TypeError, KeyError):
        return ""
