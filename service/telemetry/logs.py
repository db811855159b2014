"""The log: a line for each event, as text or as JSON, and for each request where that is asked for.

No line can be forged: whatever a client sent is escaped, so that it stays within the line that it belongs to.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from service.telemetry.records import CURRENT, RequestRecord

Format = Literal["text", "json"]
PATH_LENGTH = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BARE = re.compile(r"[\w.:/+=@~%-]+", re.ASCII)

log = logging.getLogger("sluice.access")


def configure_logging(form: Format, level: str) -> None:
    """Sends the log of the process to standard error, from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def log_request(record: RequestRecord) -> None:
    """Writes a request down: what it asked for, how it ended, and the times it took."""
    if log.isEnabledFor(logging.INFO):
        path = record.path[:PATH_LENGTH]
        log.info("%s %s %s", record.method, path, record.status or "-", extra={"fields": request_fields(record)})


def request_fields(record: RequestRecord) -> dict[str, Any]:
    """A request in figures. Times are milliseconds; levels, rates and qualities 0 to 1. Of several inferences in one
    call (`inferences`) it is the last.
    """
    fields: dict[str, Any] = {
        "method": record.method,
        "path": record.path[:PATH_LENGTH],
        "status": record.status or None,
        "duration_ms": _milliseconds(record.seconds),
    }
    if record.outcomes:
        outcome = record.outcomes[-1]
        fields |= {"model": outcome.model, "protocol": outcome.protocol, "outcome": outcome.outcome}
        if outcome.slo_met is not None:
            fields["slo_met"] = outcome.slo_met
        if len(record.outcomes) > 1:
            fields["inferences"] = len(record.outcomes)
        if finished := outcome.finished:
            if finished.request_id:
                fields["id"] = finished.request_id
            fields |= {
                "level": round(finished.level, 4),
                "quality": round(finished.quality, 4),
                "skip_rate": round(finished.context.skip_rate, 4),
                "macs_skipped": round(finished.context.macs_skipped_ratio, 4),
                "queue_ms": _milliseconds(finished.queue_seconds),
                "compute_ms": _milliseconds(finished.compute_seconds),
            }
            if tokens := finished.tokens:
                fields |= {
                    "prompt_tokens": tokens.prompt_tokens,
                    "generated_tokens": tokens.generated_tokens,
                    "first_token_ms": _milliseconds(tokens.first_token_seconds),
                }
                if tokens.token_seconds is not None:
                    fields["token_ms"] = _milliseconds(tokens.token_seconds)
    return fields


class JsonLines(logging.Formatter):
    """A JSON object for each event: `time`, `severity`, `logger`, `message`, `error` with the traceback where there is
    one, and of the request that it belongs to `request_id`, `trace_id`, and in the end its fields.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "severity": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_of_request(record),
        }
        if error := _error(self, record):
            line["error"] = error
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:
            # Half a character, or a number of more than 64 bits.
            return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """`time LEVEL logger: message name=value …`; a traceback follows in lines that begin with spaces, as none else."""

    def format(self, record: logging.LogRecord) -> str:
        message = _escaped(record.getMessage())
        fields = "".join(f" {name}={_value(value)}" for name, value in _of_request(record).items())
        line = f"{_time(record)} {record.levelname} {record.name}: {message}{fields}"
        return line + "".join(f"\n    {_escaped(text)}" for text in _error(self, record).splitlines())


def _of_request(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says of the request that is answered now: nothing where there is none."""
    fields = {}
    if request := CURRENT.get():
        fields["request_id"] = request.id
        if request.parent:
            fields["trace_id"] = request.parent.trace_id
    return fields | getattr(record, "fields", {})


def _error(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[1] else []
    return "\n".join(parts + ([formatter.formatStack(record.stack_info)] if record.stack_info else []))


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _BARE.fullmatch(text) else _escaped(json.dumps(text, ensure_ascii=False))


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1e3, 3)
