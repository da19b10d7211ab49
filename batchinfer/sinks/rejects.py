"""Rejected rows as JSON lines. Knows nothing of files."""

from __future__ import annotations

import orjson

from batchinfer.record import Rejection


def rejected_line(rejection: Rejection) -> bytes:
    """The line of one rejected row, newline included: valid JSON, whatever the record holds."""
    return orjson.dumps(rejection.as_row(), option=orjson.OPT_APPEND_NEWLINE)
