"""`sample` and `limit` choose the same records however files are cut."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import SourceError

LINES = b"".join(b"bad\n" if i % 7 == 3 else b'{"id":%d}\n' % i for i in range(300))


def places(rows):
    return [(row.row, type(row).__name__) for row in rows]


@given(st.integers(1, 4000), st.integers(1, 350), st.sampled_from([None, 0.05, 0.5, 1.0]))
def test_what_is_taken_does_not_depend_on_the_slices(job, target, limit, sample):
    source = job(LINES, format="jsonl", limit=limit, sample=sample)
    whole = job(LINES, format="jsonl", sample=sample).rows()
    assert source.rows(target) == whole[:limit]


def test_limit_counts_records_and_rejections_and_asks_for_no_slice_after_it(job):
    source = job(LINES, format="jsonl", limit=5)
    assert places(source.rows(100)) == places(job(LINES, format="jsonl").rows()[:5])
    slices = job(LINES, format="jsonl", limit=25).slices(100)
    assert len(slices) == 3
    assert [piece.take for piece in slices] == [None, None, 25 - slices[0].rows - slices[1].rows]


def test_limit_at_a_slice_end_takes_whole_slices(job):
    first, *_ = job(LINES, format="jsonl").slices(100)
    assert job(LINES, format="jsonl", limit=first.rows).slices(100) == [first]


def test_limit_reads_no_further_than_needed_where_rows_are_not_counted(job):
    import gzip

    files = {"d/1.gz": gzip.compress(b"a\nb\n"), "d/2.gz": gzip.compress(b"c\nd\ne\n"), "d/3.gz": b"not gzip at all"}
    source = job(files, path=tuple(files), format="text", limit=4)
    assert [(piece.rows, piece.take) for piece in source.slices()] == [(2, None), (None, 2)]
    assert [row.fields["text"] for row in source.rows()] == list("abcd")


def test_sample_is_a_stable_share_by_key_and_seed(job):
    data = b"".join(b'{"id":"k%d"}\n' % i for i in range(4000))
    keys = {seed: [row.key for row in job(data, seed, format="jsonl", key="id", sample=0.25).rows()] for seed in (0, 1)}
    assert 900 < len(keys[0]) < 1100 and keys[0] != keys[1]
    backwards = b"\n".join(reversed(data.splitlines()))
    assert [row.key for row in job(backwards, format="jsonl", key="id", sample=0.25).rows()] == keys[0][::-1]
    smaller = [row.key for row in job(data, format="jsonl", key="id", sample=0.1).rows()]
    assert set(smaller) < set(keys[0])


def test_records_with_equal_keys_are_taken_together(job):
    data = b"".join(b'{"id":%d}\n' % (i % 50) for i in range(200))
    taken = [row.key for row in job(data, format="jsonl", key="id", sample=0.5).rows()]
    assert 0 < len(set(taken)) < 50 and all(taken.count(key) == 4 for key in taken)


def test_sample_one_takes_all_and_rows_are_left_uncounted(job):
    source = job(LINES, format="jsonl", sample=1.0)
    assert len(source.rows()) == 300
    assert {piece.rows for piece in source.slices(100)} == {None}


def test_sample_and_limit_work_on_parquet(job):
    stream = io.BytesIO()
    pq.write_table(pa.table({"id": range(200)}), stream, row_group_size=20)
    data = stream.getvalue()
    whole = [row.key for row in job(data, format="parquet", key="id", sample=0.3).rows()]
    limited = job(data, format="parquet", key="id", sample=0.3, limit=10)
    assert [row.key for row in limited.rows(1)] == [row.key for row in limited.rows()] == whole[:10]


def test_a_choice_of_nothing_is_an_error(job):
    with pytest.raises(SourceError, match="no records: what is read \\(source.sample, source.limit\\) holds none"):
        job(b"one\n", format="text", sample=1e-9, limit=5).slices()
