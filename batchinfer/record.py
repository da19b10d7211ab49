"""The narrow waist: what flows from source to task, and what a bad row becomes.

A `Record` goes in; a prediction (one row of the Arrow table a task's `finish` returns) or a `Rejection`
comes out, exactly one of the two. Knows nothing of formats, models or storage; imports nothing of ours.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Key = str | int


@dataclass(frozen=True, slots=True)
class Record:
    """One input row.

    `uri` and `row` say where it came from: `row` counts from 0 in file order (the line, for line formats).
    `key` is the key field's value, or "uri:row" when the job names none.
    """

    key: Key
    fields: Mapping[str, Any]
    uri: str
    row: int


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that got no prediction, and why.

    `stage`: read | prepare | infer | finish. `error`: a short machine word ("bad_json", "too_long", ...).
    `record`: what was read, as far as it could be read (a mapping, or the raw text), JSON-safe.
    """

    key: Key | None
    uri: str
    row: int
    stage: str
    error: str
    message: str
    record: Any = None

    def as_row(self) -> dict[str, Any]:
        """JSON-safe, whatever was read."""
        return {
            "key": json_safe(self.key),
            "uri": json_safe(self.uri),
            "row": self.row,
            "stage": self.stage,
            "error": json_safe(self.error),
            "message": json_safe(self.message),
            "record": json_safe(self.record),
        }


def reject(record: Record, stage: str, error: str, message: str) -> Rejection:
    """The rejection of a record that could be read."""
    return Rejection(record.key, record.uri, record.row, stage, error, message, dict(record.fields))


MAX_TEXT_CHARS = 10_000
"""A text in a rejected row longer than this is cut, and says so: one 5 MB line must not fill the rejects."""

MAX_DEPTH = 64
"""Deeper nesting in a rejected row is cut, and says so: JSON writers and readers stop at a few hundred levels."""


def json_safe(value: Any, depth: int = MAX_DEPTH) -> Any:
    """`value` with everything JSON cannot hold replaced by text that says what it was; long and deep things are cut,
    visibly.

    Lone surrogates are escaped, integers beyond 64 bits become their digits, NaN its name, keys of mappings strings.
    """
    match value:
        case None | bool():
            return value
        case int():
            return value if -(1 << 63) <= value < 1 << 64 else _digits(value)
        case float():
            return value if math.isfinite(value) else repr(value)
        case str():
            return _cut(_unicode(value))
        case bytes() | bytearray() | memoryview():
            return {"base64": _cut(base64.b64encode(bytes(value)).decode("ascii"))}
        case Mapping() | list() | tuple() | set() | frozenset() if depth == 0:
            return f"[cut: nested more than {MAX_DEPTH} deep]"
        case Mapping():
            return {_unicode(str(k)): json_safe(v, depth - 1) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [json_safe(v, depth - 1) for v in value]
        case datetime.date() | datetime.time() | decimal.Decimal():
            return str(value)
        case _:
            return _cut(repr(value))


def _unicode(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _digits(value: int) -> str:
    # Python refuses to print integers of more than a few thousand decimal digits; hexadecimal has no such limit.
    return _cut(str(value) if value.bit_length() <= 1024 else hex(value))


def _cut(text: str) -> str:
    if len(text) <= MAX_TEXT_CHARS:
        return text
    return f"{text[:MAX_TEXT_CHARS]}... [cut: {len(text)} characters]"
