"""Compressed line files: one slice, streamed, and never silently shorter than they were."""

from __future__ import annotations

import bz2
import gzip
import random

import pytest
import zstandard

from batchinfer.errors import SourceError

PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}
NAMES = {".gz": "gzip", ".bz2": "bzip2", ".zst": "zstd"}
EACH = pytest.mark.parametrize("suffix", [*PACK])
RANDOM = random.Random(0)
LINES = b"".join(b'{"a":"%s"}\n' % RANDOM.randbytes(40).hex().encode() for _ in range(5000))


@EACH
def test_compressed_files_read_as_the_plain_one(job, suffix):
    plain = job(LINES, path="x", format="jsonl").records()
    packed = job(PACK[suffix](LINES), path=f"x{suffix}", format="jsonl")
    assert packed.records() == plain
    (piece,) = packed.slices(target_bytes=10)
    assert (piece.begin, piece.end, piece.rows) == (0, None, None)
    assert job(PACK[suffix](LINES), path="x", format="jsonl", compression=NAMES[suffix]).records() == plain
    assert job(LINES, path=f"x{suffix}", format="jsonl", compression="none").records() == plain


@EACH
def test_files_appended_to_each_other_read_as_one(job, suffix):
    data = PACK[suffix](b"\xef\xbb\xbfa\nb") + PACK[suffix](b"c\r") + PACK[suffix](b"\nd")
    assert [row.fields["text"] for row in job(data, path=f"x{suffix}", format="text").rows()] == ["a", "bc", "d"]


@EACH
def test_csv_reads_compressed_files_and_checks_their_header_when_planning(job, suffix):
    data = PACK[suffix](b'a,b\n1,"x\ny"\n')
    assert job(data, path=f"x{suffix}", format="csv").records() == [{"a": "1", "b": "x\ny"}]
    with pytest.raises(SourceError, match='no column "c"'):
        job(data, path=f"x{suffix}", format="csv", columns=("c",)).slices()


@EACH
@pytest.mark.parametrize("damage", ["cut", "flipped", "plain", "garbage behind"])
def test_damaged_files_are_an_error_that_says_what_to_do(job, suffix, damage):
    whole = PACK[suffix](LINES)
    middle = len(whole) // 2
    data = {
        "cut": whole[:-7],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :],
        "plain": LINES,
        "garbage behind": whole + b"and more",
    }[damage]
    source = job(data, path=f"x{suffix}", format="jsonl")
    words = f"^x{suffix}: the {NAMES[suffix]} data break off or are corrupt \\(.+\\); copy the file again"
    with pytest.raises(SourceError, match=words):
        source.rows()


def test_a_file_of_highly_compressed_bytes_streams(job):
    data = PACK[".zst"](b'{"a":1}\n' * 2_000_000)
    source = job(data, path="x.zst", format="jsonl")
    (piece,) = source.slices()
    assert next(source.source.read(piece)).fields == {"a": 1}
    assert len(data) < 10_000
