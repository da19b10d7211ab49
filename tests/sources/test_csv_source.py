"""CSV: records as Python's csv module sees them, wherever slices and blocks are cut."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import SourceError
from batchinfer.record import Record, Rejection
from batchinfer.sources import lines as lines_module

PIECES = st.lists(
    st.sampled_from(
        [b"a", b",", b'"', b"\n", b"\r", b"\r\n", b'""', "é".encode(), b"\xff", b" ", b'"x\ny",1\n', b"1,2\n"]
    ),
    max_size=40,
).map(b"".join)


@given(PIECES, st.integers(1, 30), st.integers(4, 9), st.sampled_from([5, 12, 1000]))
def test_slices_read_one_after_the_other_are_the_whole_file(job, data, target, block, max_line):
    whole = job(data, format="csv", header=("p", "q"), max_line_bytes=max_line)
    try:
        expected = whole.rows()
    except SourceError as error:
        assert "no records" in str(error)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines_module, "BLOCK_BYTES", block)
        assert whole.rows(target) == expected
        slices = whole.slices(target)
        assert [piece.rows for piece in slices] == [len(list(whole.source.read(piece))) for piece in slices]
        assert all(a.end == b.begin and a.first_row + a.rows == b.first_row for a, b in pairwise(slices))


@given(st.lists(st.tuples(*[st.text(st.sampled_from('ab,"\n\r é;\x00'), max_size=5)] * 2), min_size=1, max_size=20))
def test_what_the_csv_module_writes_comes_back(job, rows):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("p", "q"), *rows])
    assert [tuple(fields.values()) for fields in job(text.getvalue().encode(), format="csv").records()] == rows


def test_values_are_text_and_empty_ones_stay(job):
    source = job(b'\xef\xbb\xbfid,text,n\n1,,2.5\n2,"x, ""y""\nz",\n', format="csv", key="id")
    assert source.records() == [
        {"id": "1", "text": "", "n": "2.5"},
        {"id": "2", "text": 'x, "y"\nz', "n": ""},
    ]
    assert [row.key for row in source.rows()] == ["1", "2"]
    assert source.source.fields(source.slices()[0]) == pa.schema([(name, pa.string()) for name in ("id", "text", "n")])


def test_tabs_other_delimiters_and_quotes(job):
    assert job(b"a\tb\n1\tx,y\n", format="tsv").records() == [{"a": "1", "b": "x,y"}]
    assert job(b"a;b\n'1;2';3\n", format="csv", delimiter=";", quote="'").records() == [{"a": "1;2", "b": "3"}]
    assert job("a§b\n1§é\n".encode(), format="csv", delimiter="§").records() == [{"a": "1", "b": "é"}]


def test_ragged_rows_are_rejected_with_both_counts(job):
    rows = job(b"a,b\n1\n1,2\n1,2,3\n", format="csv").rows()
    assert [row.error if isinstance(row, Rejection) else "ok" for row in rows] == ["ragged_row", "ok", "ragged_row"]
    assert rows[2].message.startswith("3 fields where the header names 2")
    assert (rows[2].row, rows[2].key, rows[2].record) == (2, "data:2", ["1", "2", "3"])


def test_empty_lines_are_no_records_and_row_counts_records(job):
    rows = job(b"\n\na,b\n\n1,2\r\n\r\n\n3,4", format="csv").rows(target_bytes=1)
    assert [(row.row, row.fields["a"]) for row in rows] == [(0, "1"), (1, "3")]


def test_what_is_not_utf8_costs_its_record(job):
    source = job(b'a,b\n1,\xff\n"x\n\xc3",2\n3,4\n', format="csv")
    assert source.faults() == [(0, "bad_utf8"), (1, "bad_utf8")]
    assert source.rows()[0].record == ["1", "\ufffd"]


def test_a_quote_that_is_never_closed_does_not_swallow_the_file(job):
    data = b'a,b\n1,"open\n' + b"x,y\n" * 50
    rows = job(data, format="csv", max_line_bytes=40).rows()
    assert isinstance(rows[0], Rejection) and rows[0].error == "line_too_long"
    assert "never closed" in rows[0].message
    assert len(rows) > 40 and all(isinstance(row, Record) for row in rows[1:])


@pytest.mark.parametrize("target_bytes", [1, 1 << 20])
def test_a_quote_still_open_at_the_end_is_a_rejection_not_a_long_value(job, target_bytes):
    rows = job(b'a,b\n1,2\n3,"open\nx,y\nz,', format="csv").rows(target_bytes)
    assert isinstance(rows[0], Record) and len(rows) == 2
    assert (rows[1].row, rows[1].error, rows[1].record) == (1, "unclosed_quote", ["3", "open\nx,y\nz,"])
    assert job(b'a,b\n3,"closed\n"', format="csv").records() == [{"a": "3", "b": "closed\n"}]


def test_fields_larger_than_the_csv_modules_own_limit_are_read(job):
    big = "x" * 200_000
    assert job(f'a,b\n"{big}",1\n'.encode(), format="csv").records() == [{"a": big, "b": "1"}]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"a,b,a\n1,2,3\n", 'two columns have the same name, "a"'),
        (b"a,,c\n1,2,3\n", "column 2 of the header line has no name; mend it, or name the columns in source.header"),
        (b"\n\n", "there is no header line"),
        (b"a,\xff\n1,2\n", "the header line cannot be read: not UTF-8"),
    ],
)
def test_a_header_that_cannot_name_the_columns_is_a_fault_of_the_file(job, data, words):
    with pytest.raises(SourceError, match=words):
        job(data, format="csv").slices()


def test_a_missing_column_is_named_before_any_work(job):
    with pytest.raises(
        SourceError, match='data: has no column "txt", which the job reads \\(did you mean "text"\\?\\)'
    ):
        job(b"id,text\n1,x\n", format="csv", columns=("txt",)).slices()
    with pytest.raises(SourceError, match='no column "ID", which source.key names'):
        job(b"id,text\n1,x\n", format="csv", key="ID").slices()


def test_a_file_with_just_a_header_has_no_records(job):
    with pytest.raises(SourceError, match="no records"):
        job(b"a,b\n", format="csv").slices()
