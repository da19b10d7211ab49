"""Parquet, Arrow and Avro: slices, projection, and rows that Python cannot hold."""

from __future__ import annotations

import datetime
import io

import fastavro
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from batchinfer.errors import SourceError
from batchinfer.record import Rejection

ROWS = [{"id": i, "text": f"é{i}", "tags": ["a"] * (i % 3), "s": {"x": i}} for i in range(100)]
TABLE = pa.Table.from_pylist(ROWS)
AVRO_SCHEMA = {
    "type": "record",
    "name": "row",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "text", "type": "string"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "s", "type": {"type": "record", "name": "s", "fields": [{"name": "x", "type": "long"}]}},
    ],
}


def parquet_bytes(table: pa.Table, rows: int = 10) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, row_group_size=rows)
    return stream.getvalue()


def arrow_bytes(table: pa.Table, rows: int = 10, new=pa.ipc.new_file) -> bytes:
    stream = io.BytesIO()
    with new(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return stream.getvalue()


def avro_bytes(rows=ROWS, schema=AVRO_SCHEMA) -> bytes:
    stream = io.BytesIO()
    fastavro.writer(stream, schema, rows, sync_interval=100, codec="deflate")
    return stream.getvalue()


FILES = {
    "parquet": parquet_bytes(TABLE),
    "arrow": arrow_bytes(TABLE),
    "avro": avro_bytes(),
    "stream": arrow_bytes(TABLE, new=pa.ipc.new_stream),
}
ALL = pytest.mark.parametrize(
    ("form", "name"), [("parquet",) * 2, ("arrow",) * 2, ("avro",) * 2, ("feather", "stream")]
)
SLICED = pytest.mark.parametrize("form", ["parquet", "arrow", "avro"])


@ALL
def test_rows_come_back_as_python_values_in_order(job, form, name):
    source = job(FILES[name], format=form)
    assert source.records() == ROWS
    assert [(row.row, row.key) for row in source.rows()] == [(i, f"data:{i}") for i in range(100)]


@SLICED
@pytest.mark.parametrize("target", [1, 300])
def test_slices_are_exact_and_read_the_same_rows(job, form, target):
    source = job(FILES[form], format=form, key="id")
    slices = source.slices(target)
    assert sum(piece.rows for piece in slices) == 100
    assert len(slices) == 10 if target == 1 and form != "avro" else len(slices) > 1
    assert source.rows(target) == source.rows()
    assert [row.key for row in source.source.read(slices[1])][0] == slices[1].first_row == slices[0].rows


@ALL
def test_only_the_columns_asked_for_are_there(job, form, name):
    source = job(FILES[name], format=form, columns=("s", "text"), key="id")
    first = source.rows()[1]
    assert (first.key, first.fields, [*first.fields]) == (1, {"s": {"x": 1}, "text": "é1"}, ["s", "text"])
    assert source.source.fields(source.slices()[0]).names == ["s", "text"]


@ALL
def test_fields_have_the_files_types(job, form, name):
    source = job(FILES[name], format=form)
    assert source.source.fields(source.slices()[0]).equals(TABLE.schema)


def test_projected_parquet_counts_only_what_it_reads(job):
    table = pa.table({"a": range(1000), "big": ["x" * 1000 + str(i) for i in range(1000)]})
    whole = job(parquet_bytes(table, 100), format="parquet").slices(1 << 30)[0]
    (part,) = job(parquet_bytes(table, 100), format="parquet", columns=("a",)).slices(1 << 30)
    assert part.size_bytes < whole.size_bytes / 4


@ALL
def test_a_missing_column_is_named_before_any_work(job, form, name):
    with pytest.raises(
        SourceError, match='no column "txt", which the job reads \\(did you mean "text"\\?\\); it has "id"'
    ):
        job(FILES[name], format=form, columns=("txt",)).slices()


@ALL
def test_a_file_that_is_something_else_is_one_clear_line(job, form, name):
    kind = {"parquet": "Parquet", "avro": "Avro"}.get(form, "Arrow")
    with pytest.raises(SourceError, match=f"^data: not a readable {kind} file \\(.+\\); write or copy it again$"):
        job(b'{"a": 1}\n' * 10, format=form).slices()


@ALL
def test_a_file_that_breaks_off_is_an_error_not_fewer_rows(job, form, name):
    with pytest.raises(SourceError, match="not a readable"):
        job(FILES[name][:-20], format=form).rows()


def test_a_corrupt_footer_fails_the_plan(job):
    data = bytearray(FILES["parquet"])
    data[-60:-10] = bytes(50)
    with pytest.raises(SourceError, match="not a readable Parquet file"):
        job(bytes(data), format="parquet").slices()


def test_corrupt_pages_fail_the_reading(job):
    data = bytearray(FILES["parquet"])
    data[4:60] = b"\xff" * 56
    source = job(bytes(data), format="parquet")
    with pytest.raises(SourceError, match="not a readable Parquet file"):
        source.rows()


def test_feather_one_and_feather_two(job):
    stream = io.BytesIO()
    pyarrow.feather.write_feather(TABLE.select(["id", "text"]), stream)
    assert job(stream.getvalue(), format="feather").records() == [{"id": r["id"], "text": r["text"]} for r in ROWS]
    with pytest.raises(SourceError, match="Feather version 1; write it anew as version 2"):
        job(b"FEA1" + bytes(100), format="feather").slices()


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_value_python_cannot_hold_costs_its_row(job, form):
    texts = pa.Array.from_buffers(pa.string(), 3, pa.array([b"ok", b"\xff!", b"fine"]).buffers())
    when = pa.array([0, 0, 2**53], pa.timestamp("ms"))
    table = pa.table({"text": texts, "when": when})
    rows = job({"parquet": parquet_bytes, "arrow": arrow_bytes}[form](table), format=form).rows()
    assert rows[0].fields == {"text": "ok", "when": datetime.datetime(1970, 1, 1)}
    assert [(row.row, row.error) for row in rows if isinstance(row, Rejection)] == [(1, "bad_utf8"), (2, "bad_value")]
    assert rows[1].record["text"] == "\ufffd!" and 'column "text"' in rows[1].message
    assert rows[2].record == {"text": "fine", "when": None}


def test_avro_text_that_is_not_utf8_costs_its_record(job):
    data = avro_bytes([{"t": b"ok"}, {"t": b"\xff"}, {"t": "ü".encode()}], _avro_of("bytes"))
    source = job(_as_string(data), format="avro")
    assert source.faults() == [(1, "bad_utf8")]
    assert [row.fields["t"] for row in source.rows() if not isinstance(row, Rejection)] == ["ok", "ü"]


def _avro_of(kind: str) -> dict:
    return {"type": "record", "name": "row", "fields": [{"name": "t", "type": kind}]}


def _as_string(data: bytes) -> bytes:
    """The same file with its bytes field declared a string: the schema is JSON of the same length but for padding."""
    assert b'"bytes"' in data
    head, _, tail = data.partition(b'{"type": "record"')
    schema, rest = tail.split(b"}]}", 1)
    shorter = (b'{"type": "record"' + schema + b"}]}").replace(b'"bytes"', b'"string"').replace(b": ", b":", 1)
    return head + shorter + rest


def test_an_avro_file_of_plain_values_has_no_fields(job):
    stream = io.BytesIO()
    fastavro.writer(stream, {"type": "array", "items": "long"}, [[1], [2]])
    with pytest.raises(SourceError, match="its Avro schema is not a record"):
        job(stream.getvalue(), format="avro").slices()


@pytest.mark.parametrize("form", ["parquet", "arrow", "avro"])
def test_a_file_without_rows_gives_no_slice(job, form):
    empty = {"parquet": parquet_bytes(TABLE[:0]), "arrow": arrow_bytes(TABLE[:0]), "avro": avro_bytes([])}[form]
    source = job({"d/a": empty, "d/b": FILES[form], "d/c": b""}, path=("d/a", "d/b", "d/c"), format=form)
    assert {piece.uri for piece in source.slices()} == {"d/b"}
    with pytest.raises(SourceError, match="no records: the only file is empty"):
        job(empty, format=form).slices()


def test_columns_with_the_same_name_are_refused(job):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(SourceError, match='two columns have the same name, "a"'):
        job(arrow_bytes(table), format="arrow").slices()


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_only_partition_columns_can_be_asked_for(job, form):
    data = FILES[form]
    rows = job({"d/dt=1/a": data}, path="d/*/a", format=form, columns=("dt",)).rows()
    assert [dict(row.fields) for row in rows] == [{"dt": "1"}] * 100


def test_arrow_offsets_that_point_outside_the_data_are_found_before_they_are_followed(job):
    offsets = pa.array([0, 1 << 30, 4], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abcd")])
    with pytest.raises(SourceError, match="not a readable Arrow file"):
        job(arrow_bytes(pa.table({"text": broken})), format="arrow").rows()
