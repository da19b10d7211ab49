"""Keys and passed-through fields: typed columns, nothing converted on the quiet, misfits rejected."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from batchinfer.record import Record
from batchinfer.sinks.fields import with_fields


def passed(values: list[Any], kind: pa.DataType) -> tuple[list[Any], list[tuple[int, str]]]:
    """What stands in the output, and the row and message of each rejection."""
    records = [Record(i, {"f": value}, "in", i) for i, value in enumerate(values)]
    fields = pa.schema([("id", pa.int64()), ("f", kind)])
    table, misfits = with_fields(pa.table({"y": list(range(len(values)))}), records, fields)
    assert table.schema.names == ["id", "f", "y"]
    assert table["id"].to_pylist() == table["y"].to_pylist()
    assert {(m.stage, m.error) for m in misfits} <= {("finish", "wrong_type")}
    return table["f"].to_pylist(), [(m.row, m.message) for m in misfits]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int64(), [1, None, -5, 7.0]),
        (pa.float64(), [1, 2.5, None]),
        (pa.string(), ["", "é", None]),
        (pa.bool_(), [True, False]),
        (pa.list_(pa.float32()), [[1.5], [], None]),
        (pa.list_(pa.list_(pa.string())), [[["a"], []], [None]]),
        (pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]), [{"a": 1, "b": ["x"]}, {"a": 2, "b": None}]),
        (pa.map_(pa.string(), pa.int64()), [[("a", 1)], []]),
    ],
    ids=str,
)
def test_what_fits_is_passed_through(kind: pa.DataType, values: list[Any]) -> None:
    assert passed(values, kind) == (values, [])


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (pa.int64(), 1, "1"),
        (pa.int64(), 1, 1.5),
        (pa.int64(), 1, True),
        (pa.int64(), 1, float("inf")),
        (pa.list_(pa.int64()), [1], [2.5]),
        (pa.list_(pa.float64()), [1.0], [True]),
        (pa.int64(), 1, 2**64),
        (pa.float64(), 1.0, True),
        (pa.float64(), 1.0, "x"),
        (pa.string(), "a", 1),
        (pa.string(), "a", ["a"]),
        (pa.list_(pa.string()), ["a"], "abc"),
        (pa.list_(pa.string()), ["a"], {"a": 1}),
        (pa.list_(pa.list_(pa.string())), [["a"]], ["abc"]),
        (pa.list_(pa.int64()), [1], [1, "x"]),
        (pa.struct([("a", pa.int64())]), {"a": 1}, {"a": 1, "b": 2}),
        (pa.struct([("a", pa.int64())]), {"a": 1}, [("a", 1)]),
        (pa.null(), None, 1),
    ],
    ids=str,
)
def test_what_does_not_fit_rejects_its_record_alone(kind: pa.DataType, good: Any, bad: Any) -> None:
    kept, misfits = passed([good, bad, good], kind)
    assert kept == [good, good]
    ((row, message),) = misfits
    assert row == 1
    assert message.startswith(f'field "f" does not fit its output type {kind}: ')
    assert len(message) < 400


def test_numbers_among_keys_of_text_are_written_as_text() -> None:
    records = [Record("a", {}, "in", 0), Record(7, {}, "in", 1)]
    table, misfits = with_fields(pa.table({"y": [0, 1]}), records, pa.schema([("key", pa.string())]))
    assert (table["key"].to_pylist(), misfits) == (["a", "7"], [])
