"""JSON Lines and text: what is a line, what is a record, and that slices say exactly where they begin."""

from __future__ import annotations

import re

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import SourceError
from batchinfer.record import Record, Rejection
from batchinfer.sources import lines as lines_module

LINE_BYTES = st.lists(
    st.sampled_from(
        [b"a", b"{}", b'{"id":1}', "é😀".encode(), b"\xff", b"\x00", b" ", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf"]
    ),
    max_size=40,
).map(b"".join)
FORMATS = st.sampled_from(["text", "jsonl"])


@given(LINE_BYTES, FORMATS, st.integers(1, 30), st.integers(1, 7), st.integers(1, 40))
def test_slices_read_one_after_the_other_are_the_whole_file(job, data, form, target, block, max_line):
    with pytest.MonkeyPatch.context() as patch:
        whole = job(data, format=form, max_line_bytes=max_line)
        expected = _or_fault(whole.rows)
        patch.setattr(lines_module, "BLOCK_BYTES", max(block, 3))
        assert _or_fault(lambda: whole.rows(target)) == expected
        if isinstance(expected, list):
            slices = whole.slices(target)
            assert [piece.rows for piece in slices] == [len(list(whole.source.read(piece))) for piece in slices]
            assert [piece.first_row for piece in slices] == sorted(piece.first_row for piece in slices)
            assert all(a.end <= b.begin for a, b in zip(slices, slices[1:], strict=False))
            assert all(piece.size_bytes >= min(target, 1) for piece in slices)


def _or_fault(rows):
    try:
        return rows()
    except SourceError as error:
        return str(error)


@given(
    st.lists(st.sampled_from(["a", "é", "", "\x00", "\x0b", "\x1c", "\x85", "\u2028", "😀"]), min_size=1, max_size=20)
)
def test_text_lines_are_those_of_bytes_splitlines(job, words):
    data = "\n".join(words).encode() + b"x\r\n\rlast"
    assert [r["text"] for r in job(data, format="text").records()] == [line.decode() for line in data.splitlines()]


def test_newline_conventions_mixed_and_no_newline_at_the_end(job):
    rows = job(b'{"a":1}\r{"a":2}\r\n{"a":3}\n{"a":4}', format="jsonl").rows()
    assert [(row.row, row.fields["a"]) for row in rows] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_a_byte_order_mark_is_not_data(job):
    assert job(b'\xef\xbb\xbf{"a":1}\n', format="jsonl").records() == [{"a": 1}]
    assert job(b"\xef\xbb\xbfx\n\xef\xbb\xbfy", format="text").records() == [{"text": "x"}, {"text": "\ufeffy"}]


def test_characters_are_whole_wherever_blocks_and_slices_end(job, monkeypatch):
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", 3)
    text = "é😀ü" * 5
    data = f"{text}\n{text}\n{text}".encode()
    assert [row.fields["text"] for row in job(data, format="text").rows(target_bytes=1)] == [text] * 3


def test_rows_are_line_numbers_and_empty_json_lines_are_no_records(job):
    rows = job(b'\n{"a":1}\n\n\n{"a":2}\n\n', format="jsonl").rows(target_bytes=1)
    assert [(row.row, row.key) for row in rows] == [(1, "data:1"), (4, "data:4")]


def test_empty_text_lines_are_records(job):
    assert job(b"a\n\n\nb\n", format="text", field="line").records() == [{"line": x} for x in ("a", "", "", "b")]


def test_bad_json_lines_are_rejected_one_by_one(job):
    data = b'{"a":1}\n{"a":\n  \n[1,2]\n{"a":"\xff"}\n{"a":NaN}\n7\n{"a":2,"a":3}'
    source = job(data, format="jsonl")
    assert source.faults() == [
        (1, "bad_json"),
        (2, "bad_json"),
        (3, "not_an_object"),
        (4, "bad_utf8"),
        (5, "bad_json"),
        (6, "not_an_object"),
    ]
    assert source.rows()[-1].fields == {"a": 3}
    rejected = source.rows()[4]
    assert rejected.stage == "read" and rejected.key == "data:4"
    assert rejected.record == '{"a":"\ufffd"}'
    assert "byte 6 of the line" in rejected.message


def test_text_that_is_not_utf8_is_rejected(job):
    assert job(b"ok\n\xc3\n\xed\xa0\x80\nok", format="text").faults() == [(1, "bad_utf8"), (2, "bad_utf8")]


def test_nul_characters_are_data(job):
    assert job(b'{"a":"x\\u0000y"}', format="jsonl").records() == [{"a": "x\0y"}]
    assert job(b"x\0y", format="text").records() == [{"text": "x\0y"}]


@pytest.mark.parametrize("block", [8, 1 << 18])
def test_a_long_line_is_rejected_without_its_neighbours(job, monkeypatch, block):
    monkeypatch.setattr(lines_module, "BLOCK_BYTES", block)
    data = b"short\n" + b"x" * 5000 + b"\n" + b"y" * 100 + b"\nend\n" + b"z" * 101
    rows = job(data, format="text", max_line_bytes=100).rows()
    assert [row.error if isinstance(row, Rejection) else row.fields["text"] for row in rows] == [
        "short",
        "line_too_long",
        "y" * 100,
        "end",
        "line_too_long",
    ]
    assert rows[1].message.startswith("5000 bytes, more than source.max_line_bytes (100)")
    assert rows[1].record == "x" * 200 + "... [cut]"


@pytest.mark.parametrize(
    ("line", "error", "words"),
    [
        (b'{"di":1,"x":2}', "missing_key", 'no field "id" \\(source.key\\); the row has "di", "x"'),
        (b'{"id":null}', "null_key", "is null"),
        (b'{"id":true}', "bad_key", "is a bool; a key is a text or a whole number"),
        (b'{"id":1.5}', "bad_key", "float"),
        (b'{"id":[1]}', "bad_key", "list"),
    ],
)
def test_rows_without_a_usable_key_are_rejected(job, line, error, words):
    source = job(line + b'\n{"id":"b"}\n{"id":7}\n{"id":7}', format="jsonl", key="id")
    bad, *good = source.rows()
    assert (bad.error, bad.key, bad.row) == (error, None, 0)
    assert re.search(words, bad.message)
    assert [row.key for row in good] == ["b", 7, 7]


def test_columns_choose_the_fields_and_the_key_need_not_be_one(job):
    source = job(b'{"id":1,"a":2,"b":3}\n{"id":2,"b":4}', format="jsonl", key="id", columns=("b", "a"))
    assert [(row.key, row.fields) for row in source.rows()] == [(1, {"b": 3, "a": 2}), (2, {"b": 4})]
    assert [*source.rows()[0].fields] == ["b", "a"]


def test_fields_are_inferred_from_the_first_records(job):
    data = b'{"i":1,"f":1,"s":"x","n":null,"m":1,"l":[1]}\nbad\n{"i":2,"f":1.5,"s":null,"n":null,"m":"x","o":{"p":1}}'
    source = job(data, format="jsonl")
    assert source.source.fields(source.slices()[0]) == pa.schema(
        [
            ("i", pa.int64()),
            ("f", pa.float64()),
            ("s", pa.string()),
            ("n", pa.null()),
            ("m", pa.string()),
            ("l", pa.list_(pa.int64())),
            ("o", pa.struct([("p", pa.int64())])),
        ]
    )


def test_slices_are_about_the_size_asked_for(job):
    slices = job(b"0123456789\n" * 1000, format="text").slices(target_bytes=2000)
    assert [piece.size_bytes for piece in slices[:-1]] == [2002] * 5
    assert [piece.first_row for piece in slices] == [0, 182, 364, 546, 728, 910]
    assert sum(piece.rows for piece in slices) == 1000


def test_a_file_cut_after_planning_is_an_error(job):
    source = job(b"a\nb\nc\n", format="text")
    (piece,) = source.slices()
    source.files.written["data"] = b"a\nb\n"
    with pytest.raises(SourceError, match="data: ends 2 bytes early"):
        list(source.source.read(piece))


def test_reading_needs_one_block_at_a_time(job):
    opened = job(b'{"a":1}\n' * 100_000, format="jsonl")
    (piece,) = opened.slices()
    first = next(opened.source.read(piece))
    assert isinstance(first, Record) and first.fields == {"a": 1}
