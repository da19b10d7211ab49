"""Rejected rows as JSON lines: whatever a record holds, its line is valid JSON. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from batchinfer.record import Rejection

MAX_DEPTH = 64
"""Deeper nesting in a rejected row is cut, and says so: JSON writers and readers stop at a few hundred levels."""


def rejected_line(rejection: Rejection) -> bytes:
    """The line of one rejected row, newline included. Whatever the record holds, this gives valid JSON.

    What JSON cannot hold becomes text: lone surrogates escaped, integers beyond 64 bits and NaN as their digits or
    name, keys of mappings as strings.
    """
    clean = replace(rejection, record=_clean(rejection.record, MAX_DEPTH))
    return orjson.dumps(_clean(clean.as_row(), MAX_DEPTH + 8), option=orjson.OPT_APPEND_NEWLINE)


def _clean(value: Any, depth: int) -> Any:
    match value:
        case Mapping() | list() | tuple() if depth == 0:
            return f"[cut: nested more than {MAX_DEPTH} deep]"
        case Mapping():
            return {_text(str(key)): _clean(item, depth - 1) for key, item in value.items()}
        case list() | tuple():
            return [_clean(item, depth - 1) for item in value]
        case str():
            return _text(value)
        case bool():
            return value
        case int():
            return int(value) if -(1 << 63) <= value < 1 << 64 else _digits(value)
        case _:
            return value


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _digits(value: int) -> str:
    # Python refuses to print integers of more than a few thousand decimal digits; hexadecimal has no such limit.
    return str(value) if value.bit_length() <= 1024 else hex(value)
