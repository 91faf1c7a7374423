"""The log of a running agent: lines on standard error, for people or, as JSON, for programs.

`log` is the one way into it and this module the one place that formats it. Every record has a time, a level,
the name of an event that a program can look for, a message for people, and fields. Texts of outsiders cannot
steer a terminal or forge a line, and secrets are taken out, in either format. Libraries log by the same way,
from warnings on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from agent.triage.untrusted_text import escaped
from schemas.errors import ConfigurationError, nearest
from streaming.output.redaction import keep_environment_secret, redacted
from streaming.output.terminal import plain_json, say_error

Value = str | int | float | bool | None

FORMATS = ("text", "json")
_OURS = logging.getLogger("flagstream")
_QUIET = ("py4j", "databricks.sdk")  # their faults come back to us as exceptions
_STANDARD_ERROR = 2


def log(event: str, message: str, *, level: int = logging.INFO, **fields: Value) -> None:
    """Log what has happened.

    Args:
        event: its name, such as `condition_began`; programs look for it, so it stays.
        message: the same for people.
        fields: facts about it, such as `agent`, `batch`, `condition`.
    """
    if not any(isinstance(each, _ToStandardError) for each in logging.getLogger().handlers):
        configure()
    _OURS.log(level, "%s", message, extra={"event": event, "fields": fields})


def log_routine(event: str, message: str, **fields: Value) -> None:
    """Log what happens all the time, for programs alone: people have a display for it."""
    if is_for_programs():
        log(event, message, level=logging.INFO, **fields)


def is_for_programs() -> bool:
    """Whether this process logs as JSON."""
    return any(isinstance(each.formatter, _JsonLines) for each in logging.getLogger().handlers)


def configure(form: str = "text") -> None:
    """Send what this process logs to standard error, from now on in this format.

    Raises:
        ConfigurationError: there is no such format.
    """
    handler = _ToStandardError()
    handler.setFormatter(_formatter(form))
    handler.addFilter(lambda record: record.name == _OURS.name or record.levelno >= logging.WARNING)
    root = logging.getLogger()
    for each in [each for each in root.handlers if isinstance(each, _ToStandardError)]:
        root.removeHandler(each)
    root.addHandler(handler)
    _OURS.setLevel(logging.INFO)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    keep_environment_secret(os.environ)


def check_format(form: str, where: str) -> str:
    """Return the name of a format.

    Raises:
        ConfigurationError: there is no such format.
    """
    if form not in FORMATS:
        raise ConfigurationError(f"no format {form!r}; {nearest(form, FORMATS)}", where=where)
    return form


def say_fault(message: str) -> None:
    """Say why a command ends: as a line for people or, where the log is JSON, as a record of the log."""
    if is_for_programs():
        log("ended_with_fault", message, level=logging.ERROR)
    else:
        say_error(message)


def last_words(event: str, message: str) -> None:
    """Log from within a signal handler, or just before the process leaves, without taking a lock."""
    found = [each.formatter for each in logging.getLogger().handlers if isinstance(each, _ToStandardError)]
    form = found[0] or _TextLines() if found else _TextLines()
    record = logging.LogRecord(_OURS.name, logging.INFO, "", 0, message, None, None)
    record.__dict__.update(event=event, fields={})
    with suppress(OSError):
        os.write(_STANDARD_ERROR, f"{form.format(record)}\n".encode())


class _ToStandardError(logging.Handler):
    """Writes to whatever standard error is at that moment: a progress display takes its place for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler. Standard error that is gone must not end whoever has something to log.

        Nor must a record that cannot be formatted, such as a library's with too few arguments.
        """
        try:
            line = self.format(record)
        except Exception as fault:
            line = self.format(_unformatted(record, fault))
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


class _TextLines(logging.Formatter):
    """A line per record, with its fields at the end; lines of a traceback are marked as such."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        known = _facts(record, self)
        trace = known.pop("traceback", "")
        begin = f"{known.pop('time')} {known.pop('level')} {known.pop('event')}: {known.pop('message')}"
        fields = "".join(f" {name}={json.dumps(value)}" for name, value in known.items())
        lines = "".join(f"\n  | {line}" for line in trace.splitlines())
        return escaped(f"{begin}{fields and ' '}{fields}{lines}", lines=True)


class _JsonLines(logging.Formatter):
    """A JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        return plain_json(json.dumps(_facts(record, self)))


def _unformatted(record: logging.LogRecord, fault: Exception) -> logging.LogRecord:
    """Return a record that stands for one that cannot be formatted."""
    said = f"a record of {record.pathname}:{record.lineno} cannot be formatted: {type(fault).__name__}"
    return logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, said, None, None)


def _facts(record: logging.LogRecord, form: logging.Formatter) -> dict[str, Any]:
    moment = datetime.fromtimestamp(record.created, UTC)
    fields: dict[str, Value] = getattr(record, "fields", {})
    facts = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "event": getattr(record, "event", "library"),
        "message": _shown(record.getMessage()),
        **({} if record.name == _OURS.name else {"logger": record.name}),
        **{name: _shown(value) for name, value in fields.items() if value is not None},
    }
    if record.exc_info and record.exc_info[0] is not None:
        facts["traceback"] = escaped(redacted(form.formatException(record.exc_info)), lines=True)
    return facts


def _shown(value: Value) -> Value:
    """Return a value that JSON has: it has no numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return escaped(redacted(value)) if isinstance(value, str) else value


def _formatter(form: str) -> logging.Formatter:
    return {"text": _TextLines, "json": _JsonLines}[check_format(form, "--log-format")]()
