"""Logging of a node: lines for people or for machines. Each line about a saga carries its id, step and attempt."""

import json
import logging
from pathlib import Path

FORMATS = ("text", "json")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_FIELDS = ("saga_id", "step", "attempt")


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
