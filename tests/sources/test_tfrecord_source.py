"""TFRecord: framing with checksums, and tf.train.Example without TensorFlow."""

from __future__ import annotations

import gzip
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import SourceError
from batchinfer.record import Rejection
from batchinfer.sources.tfrecord import decode_example, masked_crc32c


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(features: dict[str, list], packed: bool = True) -> bytes:
    entries = [message(1, message(1, name.encode()) + message(2, feature(v, packed))) for name, v in features.items()]
    return message(1, b"".join(entries))


def feature(values: list, packed: bool) -> bytes:
    match values:
        case [float(), *_]:
            each = [struct.pack("<f", value) for value in values]
            return message(2, message(1, b"".join(each)) if packed else b"".join(b"\x0d" + value for value in each))
        case [int(), *_]:
            each = [varint(value) for value in values]
            return message(3, message(1, b"".join(each)) if packed else b"".join(b"\x08" + value for value in each))
        case _:
            return message(1, b"".join(message(1, value) for value in values))


def framed(*records: bytes) -> bytes:
    def one(data: bytes) -> bytes:
        length = struct.pack("<Q", len(data))
        return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))

    return b"".join(one(data) for data in records)


def test_the_checksum_is_crc32c_masked():
    crc = 0xE3069283  # the published check value of CRC-32C for these nine bytes
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("packed", [True, False])
def test_features_become_values(packed):
    features = {
        "id": [7],
        "neg": [-1, 2**62],
        "f": [0.5, -2.0],
        "text": ["é".encode()],
        "raw": [b"\xff\x00"],
        "none": [],
    }
    assert decode_example(example(features, packed)) == {
        "id": 7,
        "neg": [-1, 2**62],
        "f": [0.5, -2.0],
        "text": "é",
        "raw": b"\xff\x00",
        "none": None,
    }


FEATURES = st.dictionaries(
    st.text(max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)
    | st.lists(st.floats(width=32, allow_nan=False), max_size=4)
    | st.lists(st.binary(max_size=8), max_size=4),
    max_size=5,
)


@given(FEATURES)
def test_protobufs_own_encoding_is_understood(features):
    pool = pytest.importorskip("google.protobuf.descriptor_pool")
    value = _reference(pool)
    for name, values in features.items():
        target = value.features.feature[name]
        match values:
            case [float(), *_]:
                target.float_list.value.extend(values)
            case [int(), *_]:
                target.int64_list.value.extend(values)
            case _:
                target.bytes_list.value.extend(values)
    assert decode_example(value.SerializeToString()) == decode_example(example(features))


def _reference(pool):
    from google.protobuf import descriptor_pb2, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="e.proto", package="e", syntax="proto3")
    kinds = {"BytesList": "TYPE_BYTES", "FloatList": "TYPE_FLOAT", "Int64List": "TYPE_INT64"}
    for name, kind in kinds.items():
        file.message_type.add(name=name).field.add(name="value", number=1, label="LABEL_REPEATED", type=kind)
    one = file.message_type.add(name="Feature")
    for number, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        kind = f".e.{list(kinds)[number - 1]}"
        one.field.add(name=name, number=number, label="LABEL_OPTIONAL", type="TYPE_MESSAGE", type_name=kind)
    many = file.message_type.add(name="Features")
    entry = many.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label="LABEL_OPTIONAL", type="TYPE_STRING")
    entry.field.add(name="value", number=2, label="LABEL_OPTIONAL", type="TYPE_MESSAGE", type_name=".e.Feature")
    kind = ".e.Features.FeatureEntry"
    many.field.add(name="feature", number=1, label="LABEL_REPEATED", type="TYPE_MESSAGE", type_name=kind)
    whole = file.message_type.add(name="Example")
    whole.field.add(name="features", number=1, label="LABEL_OPTIONAL", type="TYPE_MESSAGE", type_name=".e.Features")
    own = pool.DescriptorPool()
    own.Add(file)
    return message_factory.GetMessageClass(own.FindMessageTypeByName("e.Example"))()


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(1, 400), st.booleans())
def test_framing_round_trip_whatever_the_slices(job, sizes, target, zipped):
    data = framed(*(example({"x": [b"v" * size]}) for size in sizes))
    source = job(gzip.compress(data) if zipped else data, format="tfrecord", compression="gzip" if zipped else "none")
    rows = source.rows(target)
    assert [(row.row, row.fields) for row in rows] == [(i, {"x": "v" * size}) for i, size in enumerate(sizes)]
    if not zipped:
        assert sum(piece.rows for piece in source.slices(target)) == len(sizes)
        assert sum(piece.size_bytes for piece in source.slices(target)) == len(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_example_or_a_rejection(job, data):
    (row,) = job(framed(data), format="tfrecord").rows()
    assert not isinstance(row, Rejection) or (row.stage, row.error) == ("read", "bad_example")


def test_damaged_data_cost_one_record_damaged_framing_the_file(job):
    data = bytearray(framed(*[example({"x": [i]}) for i in range(3)]))
    size = len(data) // 3
    data[size + 14] ^= 1
    source = job(bytes(data), format="tfrecord")
    assert source.faults() == [(1, "bad_crc")]
    data[2 * size + 1] ^= 1
    with pytest.raises(SourceError, match=f"no TFRecord at byte {2 * size} \\(length checksum\\)"):
        job(bytes(data), format="tfrecord").slices()


def test_a_file_that_breaks_off_is_an_error(job):
    data = framed(example({"x": [1]}), example({"x": [2]}))
    for end in (len(data) - 1, len(data) // 2 + 5):
        with pytest.raises(SourceError, match=f"breaks off in the record at byte {len(data) // 2}"):
            job(data[:end], format="tfrecord").slices()
        with pytest.raises(SourceError, match="breaks off in the record"):
            job(gzip.compress(data[:end]), format="tfrecord", compression="gzip").rows()


def test_keys_columns_and_gzip_by_name(job):
    data = gzip.compress(framed(example({"id": [b"k"], "n": [1]}), example({"n": [2]})))
    good, bad = job(data, path="a.tfrecord.gz", format="tfrecord", key="id", columns=("n",)).rows()
    assert (good.key, good.fields) == ("k", {"n": 1})
    assert bad.error == "missing_key"
