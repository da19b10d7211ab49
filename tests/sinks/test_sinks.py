"""The sinks: the same rows give the same bytes however they are cut, and what is read back is what was written."""

from __future__ import annotations

import base64
import datetime
import decimal
import gzip
import io
import itertools
import json
import sys
import zlib
from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from batchinfer.errors import BatchInferError, SpecError
from batchinfer.job import spec
from batchinfer.sinks import open_sink
from batchinfer.sinks.packed import BLOCK_BYTES, PackedStream

SINKS = [
    spec.ParquetSink(row_group_rows=7),
    spec.ParquetSink(compression="snappy", row_group_rows=1),
    spec.ParquetSink(compression="none"),
    spec.JsonlSink(format="jsonl"),
    spec.JsonlSink(format="jsonl", compression="gzip"),
    spec.JsonlSink(format="jsonl", compression="zstd"),
    spec.TFRecordSink(format="tfrecord"),
    spec.TFRecordSink(format="tfrecord", compression="gzip"),
]

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "vector": pa.list_(pa.float32(), 3),
        "half": pa.list_(pa.float16(), 2),
        "score": pa.float32(),
        "count": pa.int64(),
        "small": pa.uint8(),
        "flag": pa.bool_(),
        "labels": pa.list_(pa.string()),
        "ids": pa.large_list(pa.int32()),
        "raw": pa.binary(),
        "nothing": pa.null(),
    }
)

singles = st.floats(width=32, allow_nan=False, allow_infinity=False)
halves = st.floats(width=16, allow_nan=False, allow_infinity=False)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text(max_size=8) | st.none(),
            "vector": st.lists(singles, min_size=3, max_size=3) | st.none(),
            "half": st.lists(halves, min_size=2, max_size=2) | st.none(),
            "score": singles | st.none(),
            "count": st.integers(-(2**63), 2**63 - 1) | st.none(),
            "small": st.integers(0, 255) | st.none(),
            "flag": st.booleans() | st.none(),
            "labels": st.lists(st.text(max_size=3), max_size=3) | st.none(),
            "ids": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3) | st.none(),
            "raw": st.binary(max_size=4) | st.none(),
            "nothing": st.none(),
        }
    ),
    max_size=30,
)


ids = {"ids": lambda sink: f"{sink.format}-{sink.compression}"}
few = settings(max_examples=25, deadline=None)


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, SCHEMA)


def with_vectors(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without null vectors, which the parquet sink refuses."""
    return [row | {"vector": row["vector"] or [0, 1, 2], "half": row["half"] or [0, 1]} for row in rows]


def part(sink: spec.Sink, schema: pa.Schema, tables: list[pa.Table]) -> bytes:
    stream = io.BytesIO()
    writer = open_sink(sink).open_part(stream, schema)
    for table in tables:
        writer.write(table)
    writer.close()
    return stream.getvalue()  # also asserts that close() left the stream open


def json_rows(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def example_class() -> Any:
    """tf.train.Example built from its published field numbers, read by protobuf: independent of our encoder."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    for name, kind in (("BytesList", "BYTES"), ("FloatList", "FLOAT"), ("Int64List", "INT64")):
        values = file.message_type.add(name=name)
        values.field.add(name="value", number=1, type=field.Type.Value(f"TYPE_{kind}"), label=field.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, of) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")), 1
    ):
        feature.field.add(
            name=name, number=number, type=field.TYPE_MESSAGE, type_name=f".t.{of}", label=1, oneof_index=0
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, type_name=".t.Feature", label=1)
    features.field.add(name="feature", number=1, type=field.TYPE_MESSAGE, type_name=".t.Features.FeatureEntry", label=3)
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=field.TYPE_MESSAGE, type_name=".t.Features", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


EXAMPLE = example_class()


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def tfrecord_payloads(data: bytes) -> list[bytes]:
    payloads = []
    while data:
        length = int.from_bytes(data[:8], "little")
        body = data[12 : 12 + length]
        assert int.from_bytes(data[8:12], "little") == masked(data[:8])
        assert int.from_bytes(data[12 + length : 16 + length], "little") == masked(body)
        payloads.append(body)
        data = data[16 + length :]
    return payloads


def tfrecord_rows(data: bytes) -> list[dict[str, tuple[str, list[Any]]]]:
    rows = []
    for payload in tfrecord_payloads(data):
        features = EXAMPLE.FromString(payload).features.feature
        kinds = {name: feature.WhichOneof("kind") for name, feature in features.items()}
        rows.append({name: (kinds[name], list(getattr(features[name], kinds[name]).value)) for name in features})
    return rows


# --- every format ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sink", SINKS, **ids)
@few
@given(rows=ROWS, cuts=st.lists(st.integers(0, 30), max_size=6))
def test_same_rows_cut_anywhere_give_the_same_bytes(sink: spec.Sink, rows: list, cuts: list[int]) -> None:
    rows = with_vectors(rows) if sink.format == "parquet" else rows
    table = table_of(rows)
    bounds = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    pieces = [table.slice(begin, end - begin) for begin, end in itertools.pairwise(bounds)]
    rebuilt = [table_of(rows[begin:end]) for begin, end in itertools.pairwise(bounds)]
    whole = part(sink, SCHEMA, [table])
    assert part(sink, SCHEMA, pieces) == whole
    assert part(sink, SCHEMA, rebuilt) == whole
    assert part(sink, SCHEMA, [pa.concat_tables([table.schema.empty_table(), *pieces])]) == whole


@pytest.mark.parametrize("sink", SINKS, **ids)
def test_a_part_without_rows_is_a_valid_empty_file(sink: spec.Sink) -> None:
    data = part(sink, SCHEMA, [])
    assert part(sink, SCHEMA, [SCHEMA.empty_table()]) == data
    match open_sink(sink).suffix:
        case ".parquet":
            empty = pq.read_table(io.BytesIO(data))
            assert empty.num_rows == 0 and empty.schema.equals(SCHEMA)
        case ".jsonl" | ".tfrecord":
            assert data == b""
        case ".jsonl.gz" | ".tfrecord.gz":
            assert gzip.decompress(data) == b""
        case ".jsonl.zst":
            assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read() == b""
        case suffix:
            pytest.fail(f"unknown suffix {suffix}")


@pytest.mark.parametrize("sink", SINKS, **ids)
def test_dictionary_columns_are_written_as_their_values(sink: spec.Sink) -> None:
    words = ["a", "b", None, "c", "a", "c"]
    coded = pa.table({"word": pa.array(words).dictionary_encode()})
    pieces = [pa.table({"word": pa.array(words[at : at + 2]).dictionary_encode()}) for at in (0, 2, 4)]
    plain = part(sink, pa.schema({"word": pa.string()}), [pa.table({"word": words})])
    assert part(sink, coded.schema, [coded]) == part(sink, coded.schema, pieces) == plain


@pytest.mark.parametrize("sink", SINKS, **ids)
def test_check_names_columns_that_stand_twice_and_passes_the_rest(sink: spec.Sink) -> None:
    twice = pa.schema([("id", pa.string()), ("x", pa.int8()), ("id", pa.int64())])
    assert open_sink(sink).check(SCHEMA) == []
    assert open_sink(sink).check(twice) == [
        "column id: stands 2 times in the output; leave it out of sink.include, or rename it in the input"
    ]


def test_tfrecord_without_its_checksum_package_is_a_fault_of_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", None)
    monkeypatch.delitem(sys.modules, "batchinfer.sinks.tfrecord", raising=False)
    with pytest.raises(SpecError, match=r"sink.format: tfrecord needs the package google_crc32c: pip install"):
        open_sink(spec.TFRecordSink(format="tfrecord"))


def test_a_table_of_another_schema_is_refused() -> None:
    writer = open_sink(spec.JsonlSink(format="jsonl")).open_part(io.BytesIO(), SCHEMA)
    with pytest.raises(ValueError, match="names"):
        writer.write(pa.table({"other": [1]}))


# --- parquet --------------------------------------------------------------------------------------------------------


@few
@given(rows=ROWS)
def test_parquet_reads_back_equal_with_its_types(rows: list) -> None:
    table = table_of(with_vectors(rows))
    back = pq.read_table(io.BytesIO(part(SINKS[0], SCHEMA, [table])))
    assert back.schema.equals(SCHEMA)
    assert back.equals(table)


def test_parquet_row_groups_have_the_size_asked_for_whatever_the_tables() -> None:
    tables = [pa.table({"n": list(range(size))}) for size in (3, 0, 15, 1, 4)]
    file = pq.ParquetFile(io.BytesIO(part(spec.ParquetSink(row_group_rows=7), tables[0].schema, tables)))
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [7, 7, 7, 2]


def test_parquet_options_are_the_pinned_ones() -> None:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(8, np.float32)), 2)
    table = pa.table({"id": ["a"] * 4, "vector": vectors}).replace_schema_metadata({"pandas": "{}"})
    metadata = pq.read_metadata(io.BytesIO(part(spec.ParquetSink(), table.schema, [table])))
    text, vector = (metadata.row_group(0).column(i) for i in range(2))
    assert (text.compression, vector.compression) == ("ZSTD", "ZSTD")
    assert text.has_dictionary_page and not vector.has_dictionary_page
    assert text.is_stats_set and not vector.is_stats_set
    assert metadata.format_version == "2.6"
    assert b"pandas" not in (metadata.metadata or {})


def test_parquet_names_columns_it_cannot_hold() -> None:
    schema = pa.schema({"ok": pa.int8(), "either": pa.dense_union([pa.field("a", pa.int8())]), "none": pa.struct([])})
    either, none = open_sink(spec.ParquetSink()).check(schema)
    assert either.startswith("column either: dense_union<a: int8=0> cannot be written as parquet (")
    assert none.startswith("column none: struct<> cannot be written as parquet (")


def test_parquet_refuses_a_null_vector_that_arrow_could_not_read_back() -> None:
    table = pa.table({"vector": pa.array([[1.0], None], pa.list_(pa.float32(), 1))})
    with pytest.raises(BatchInferError, match="column vector: null in a column of fixed_size_list.*reject such rows"):
        part(SINKS[0], table.schema, [table])


# --- jsonl ----------------------------------------------------------------------------------------------------------


def narrowed(value: Any, dtype: Callable[[Any], Any]) -> Any:
    """What a reader gets that stores the printed number in its own width."""
    return None if value is None else dtype(value).tolist()


@few
@given(rows=ROWS)
def test_jsonl_reads_back_equal(rows: list) -> None:
    data = part(SINKS[3], SCHEMA, [table_of(rows)])
    back = [json.loads(line) for line in data.split(b"\n")[:-1]]
    assert [list(row) for row in back] == [SCHEMA.names] * len(rows)
    for found in back:
        found["raw"] = None if found["raw"] is None else base64.b64decode(found["raw"])
        found["half"] = narrowed(found["half"], lambda value: np.array(value, np.float16))
        found["vector"] = narrowed(found["vector"], lambda value: np.array(value, np.float32))
        found["score"] = narrowed(found["score"], np.float32)
    assert back == rows


def test_jsonl_prints_numbers_with_the_digits_their_width_needs() -> None:
    table = pa.table(
        {
            "id": ["a", "b"],
            "f16": pa.array([np.float16(0.1), None], pa.float16()),
            "f32": pa.array([0.1, None], pa.float32()),
            "f64": [0.1, float("inf")],
            "v16": pa.array([[np.float16(0.1), np.float16(65504)], None], pa.list_(pa.float16(), 2)),
            "v32": pa.array([[0.1, 16777216.0], [float("nan"), None]], pa.list_(pa.float32(), 2)),
            "big": pa.array([2**64 - 1, 0], pa.uint64()),
        }
    )
    assert part(SINKS[3], table.schema, [table]) == (
        b'{"id":"a","f16":0.1,"f32":0.1,"f64":0.1,"v16":[0.1,65504.0],"v32":[0.1,16777216.0],'
        b'"big":18446744073709551615}\n'
        b'{"id":"b","f16":null,"f32":null,"f64":null,"v16":null,"v32":[null,null],"big":0}\n'
    )


@few
@given(bits=st.integers(0, 2**16 - 1))
def test_jsonl_float16_reads_back_as_the_same_half(bits: int) -> None:
    half = np.array([bits], np.uint16).view(np.float16)
    printed = json_rows(part(SINKS[3], pa.schema({"x": pa.float16()}), [pa.table({"x": pa.array(half)})]))[0]["x"]
    if np.isfinite(half[0]):
        assert np.float16(printed) == half[0] and len(repr(printed)) <= len(repr(float(half[0])))
    else:
        assert printed is None


def test_jsonl_writes_bytes_as_base64_dates_as_iso_and_nested_values_as_json() -> None:
    when = datetime.datetime(2026, 11, 23, 8, 44, 0, 120_000, datetime.UTC)
    berlin = pa.timestamp("ms", "Europe/Berlin")
    row = {
        "raw": b"\x00\xff",
        "zoned": when,
        "local": when.replace(tzinfo=None),
        "exact": 1_700_000_000_123_456_789,
        "day": when.date(),
        "price": decimal.Decimal("1.50"),
        "best": [{"label": "x", "score": 0.25}, None],
        "deep": [[1, 2], [], None],
        "tags": [("k", 1)],
    }
    schema = pa.schema(
        {
            "raw": pa.binary(),
            "zoned": berlin,
            "local": pa.timestamp("us"),
            "exact": pa.timestamp("ns"),
            "day": pa.date32(),
            "price": pa.decimal128(9, 2),
            "best": pa.list_(pa.struct({"label": pa.string(), "score": pa.float32()})),
            "deep": pa.list_(pa.list_(pa.int16())),
            "tags": pa.map_(pa.string(), pa.int8()),
        }
    )
    assert json_rows(part(SINKS[3], schema, [pa.Table.from_pylist([row], schema)])) == [
        {
            "raw": "AP8=",
            "zoned": "2026-11-23T08:44:00.120Z",
            "local": "2026-11-23T08:44:00.120000",
            "exact": "2023-11-14T22:13:20.123456789",
            "day": "2026-11-23",
            "price": "1.50",
            "best": [{"label": "x", "score": 0.25}, None],
            "deep": [[1, 2], [], None],
            "tags": [{"key": "k", "value": 1}],
        }
    ]


def test_jsonl_names_columns_it_cannot_hold() -> None:
    schema = pa.schema({"ok": pa.int8(), "took": pa.duration("s"), "many": pa.list_(pa.duration("s"))})
    assert open_sink(SINKS[3]).check(schema) == [
        "column took: duration[s] cannot be written as JSON lines; leave it out, or use parquet",
        "column many: duration[s] cannot be written as JSON lines; leave it out, or use parquet",
    ]


def test_packed_jsonl_holds_the_lines_and_neither_name_nor_time() -> None:
    table = table_of([dict.fromkeys(SCHEMA.names) | {"id": "é"}])
    plain, gz, zst = (part(sink, SCHEMA, [table]) for sink in SINKS[3:6])
    assert gzip.decompress(gz) == plain
    assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(zst)).read() == plain
    assert gz[:10] == b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\x03"


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_packed_bytes_do_not_depend_on_the_writes_across_blocks(compression: Any) -> None:
    data = np.random.default_rng(0).integers(0, 16, BLOCK_BYTES + 70_001, np.uint8).tobytes()

    def packed(size: int) -> bytes:
        stream = io.BytesIO()
        out = PackedStream(stream, compression)
        for at in range(0, len(data), size):
            out.write(data[at : at + size])
        out.close()
        return stream.getvalue()

    whole = packed(len(data))
    assert packed(4099) == packed(BLOCK_BYTES) == whole
    match compression:
        case "gzip":
            assert zlib.decompress(whole, 31) == data
        case "zstd":
            assert zstandard.ZstdDecompressor().stream_reader(io.BytesIO(whole)).read() == data
        case _:
            assert whole == data


# --- tfrecord -------------------------------------------------------------------------------------------------------


def as_features(row: dict[str, Any]) -> dict[str, tuple[str, list[Any]]]:
    kinds = {"vector": "float_list", "half": "float_list", "score": "float_list"} | dict.fromkeys(
        ("count", "small", "flag", "ids"), "int64_list"
    )
    features = {}
    for name, value in row.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            values = [item.encode() if isinstance(item, str) else item for item in values]
            features[name] = (kinds.get(name, "bytes_list"), values)
    return features


@few
@given(rows=ROWS)
def test_tfrecord_reads_back_equal_through_protobuf(rows: list) -> None:
    data = part(SINKS[6], SCHEMA, [table_of(rows)])
    assert tfrecord_rows(data) == [as_features(row) for row in rows]


def test_tfrecord_features_stand_sorted_and_the_bytes_are_known() -> None:
    table = pa.table({"b": pa.array([1.0], pa.float32()), "a": pa.array([-1], pa.int64())})
    minus_one = b"\xff" * 9 + b"\x01"
    a = b"\x0a\x01a" + b"\x12\x0e" + b"\x1a\x0c" + b"\x0a\x0a" + minus_one
    b = b"\x0a\x01b" + b"\x12\x08" + b"\x12\x06" + b"\x0a\x04" + b"\x00\x00\x80\x3f"
    features = b"\x0a\x13" + a + b"\x0a\x0d" + b
    payloads = tfrecord_payloads(part(SINKS[6], table.schema, [table]))
    assert payloads == [b"\x0a\x24" + features]


def test_tfrecord_writes_dates_as_text_and_packs_with_gzip() -> None:
    table = pa.table({"day": [datetime.date(2026, 11, 23)]})
    data = gzip.decompress(part(SINKS[7], table.schema, [table]))
    assert tfrecord_rows(data) == [{"day": ("bytes_list", [b"2026-11-23"])}]


def test_tfrecord_names_columns_it_cannot_hold_exactly() -> None:
    schema = pa.schema(
        {
            "ok": pa.list_(pa.float16(), 4),
            "double": pa.float64(),
            "wide": pa.uint64(),
            "deep": pa.list_(pa.list_(pa.int8())),
            "object": pa.struct({"a": pa.int8()}),
        }
    )
    remedy = "; leave it out, or use parquet or jsonl"
    assert open_sink(SINKS[6]).check(schema) == [
        f"column double: a tf.train.Example cannot hold double{remedy}",
        f"column wide: a tf.train.Example cannot hold uint64{remedy}",
        f"column deep: a tf.train.Example cannot hold list<item: list<item: int8>>{remedy}",
        f"column object: a tf.train.Example cannot hold struct<a: int8>{remedy}",
    ]


def test_tfrecord_refuses_a_null_inside_a_list_and_says_where() -> None:
    table = pa.table({"ids": [[1], None, [2, None]]})
    with pytest.raises(BatchInferError, match=r"column ids: row 2 of 3 holds a null inside a list.*use parquet"):
        part(SINKS[6], table.schema, [table])


def test_orjson_and_json_agree_on_what_was_written() -> None:
    data = part(SINKS[3], SCHEMA, [table_of([dict.fromkeys(SCHEMA.names) | {"id": "\u2028\n\x00\U0001f600"}])])
    assert orjson.loads(data) == json.loads(data)
