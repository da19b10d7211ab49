"""Rejected rows become one line of valid JSON each, whatever they hold."""

from __future__ import annotations

import datetime
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.record import MAX_DEPTH, Rejection
from batchinfer.sinks.rejects import rejected_line


def line_of(record: Any, key: Any = "k") -> dict[str, Any]:
    line = rejected_line(Rejection(key, "in.jsonl", 7, "read", "bad_json", "no good", record))
    assert line.endswith(b"}\n") and line.count(b"\n") == 1
    assert json.loads(line) == orjson.loads(line)
    return orjson.loads(line)


def test_the_line_holds_every_field_in_order() -> None:
    line = rejected_line(Rejection(3, "a.jsonl", 7, "prepare", "too_long", "300 tokens", {"text": "é"}))
    expected = (
        '{"key":3,"uri":"a.jsonl","row":7,"stage":"prepare","error":"too_long","message":"300 tokens",'
        '"record":{"text":"é"}}\n'
    )
    assert line == expected.encode()


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("\ud800x", "\\ud800x"),
        ("line\nbreak\x00", "line\nbreak\x00"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**64 - 1, 2**64 - 1),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (b"\xff", {"base64": "/w=="}),
        (datetime.date(2026, 11, 23), "2026-11-23"),
        ({1: "a", None: "b", "\udfff": "c"}, {"1": "a", "None": "b", "\\udfff": "c"}),
        ((1, [2]), [1, [2]]),
    ],
)
def test_what_json_cannot_hold_becomes_text(value: Any, kept: Any) -> None:
    assert line_of(value)["record"] == kept
    assert line_of({"inside": [value]})["record"] == {"inside": [kept]}


def test_key_and_message_survive_too() -> None:
    assert line_of("x", key="\ud800")["key"] == "\\ud800"
    assert line_of("x", key=2**70)["key"] == str(2**70)


def test_an_integer_python_refuses_to_print_is_kept_in_hexadecimal() -> None:
    assert line_of(16**5000)["record"] == "0x1" + 5000 * "0"


def test_deep_nesting_is_cut_visibly() -> None:
    deep: Any = "bottom"
    for _ in range(5000):
        deep = [deep]
    found = line_of(deep)["record"]
    for _ in range(MAX_DEPTH):
        (found,) = found
    assert found == "[cut: nested more than 64 deep]"


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.dates() | st.text()
anything = st.recursive(
    scalars | st.text(st.characters(categories=["Cs", "Lu", "Cc"])),
    lambda inner: st.lists(inner) | st.dictionaries(scalars, inner) | st.sets(st.integers()),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(record=anything)
def test_any_record_gives_one_valid_line(record: Any) -> None:
    line_of(record)
