"""Files that cannot be read: known before any work where that can be, else the unit fails and the others are kept."""

from __future__ import annotations

import gzip
import subprocess
import sys
from typing import BinaryIO

import pytest
from conftest import launch_environment
from embed_jobs import GOOD, Job, lines, parquet
from faults import FaultyStorage, Operations

from batchinfer.errors import StorageError
from batchinfer.storage import Storage, wrapped

WHOLE = parquet(id=[1, 2], text=["a", "b"])
GZIPPED = gzip.compress(lines(GOOD))

BROKEN_FILES: dict[str, tuple[str, str, bytes, str]] = {
    "empty": ("jsonl", "in.jsonl", b"", "no records: the only file is empty"),
    "blank lines only": ("jsonl", "in.jsonl", b"\n\n", "no records: the only file is empty"),
    "truncated gz": (
        "jsonl",
        "in.jsonl.gz",
        GZIPPED[:-6],
        "the gzip data break off or are corrupt (Truncated compressed stream); copy the file again",
    ),
    "not gz at all": ("jsonl", "in.jsonl.gz", lines(GOOD), "the gzip data break off or are corrupt"),
    "no parquet footer": (
        "parquet",
        "in.parquet",
        WHOLE[: len(WHOLE) // 2],
        "not a readable Parquet file (Parquet magic bytes not found in footer.",
    ),
    "corrupt parquet footer": (
        "parquet",
        "in.parquet",
        WHOLE[:-60] + b"\xff" * 52 + WHOLE[-8:],
        "not a readable Parquet file (Couldn't deserialize thrift",
    ),
    "parquet without the text column": (
        "parquet",
        "in.parquet",
        parquet(id=[1], txt=["a"]),
        'has no column "text", which the job reads (did you mean "txt"?); it has "id", "txt"',
    ),
    "csv without the key column": (
        "csv",
        "in.csv",
        b"no,text\n1,a\n",
        'has no column "id", which source.key names; it has "no", "text"',
    ),
    "csv without a header": (
        "csv",
        "in.csv",
        b"id,,text\n1,2,a\n",
        "column 2 of the header line has no name; mend it, or name the columns in source.header",
    ),
    "arrow cut off": ("arrow", "in.arrow", b"ARROW1\0\0abc", "not a readable Arrow file"),
    "not avro": ("avro", "in.avro", b"Obj\x02", "not a readable Avro file"),
    "not tfrecord": ("tfrecord", "in.tfrecord", lines(GOOD), "no TFRecord at byte 0 (length checksum); it is corrupt"),
}


@pytest.mark.parametrize("fault", BROKEN_FILES)
def test_a_file_that_cannot_be_read_ends_the_plan(before_work: Job, fault: str) -> None:
    form, name, data, words = BROKEN_FILES[fault]
    path = before_work.write(form, data, name)
    code, err = before_work.run()
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"{path}: {words}")
    assert not before_work.output.exists()


def test_a_missing_file_is_named_with_a_near_one(before_work: Job) -> None:
    before_work.path("sentences.jsonl").write_bytes(lines(GOOD))
    wrong = str(before_work.path("sentense.jsonl"))
    assert before_work.run(f"--config.source.path={wrong}") == (
        2,
        f'{wrong}: no such file, nor a directory with data files in it (did you mean "sentences.jsonl"?)\n',
    )


@pytest.mark.parametrize("pattern", ["*.jsonl", "**/*.jsonl", "[ab].txt"])
def test_an_empty_glob(before_work: Job, pattern: str) -> None:
    where = f"{before_work.directory}/{pattern}"
    assert before_work.run(f"--config.source.path={where}") == (2, f"{where}: no file matches; check source.path\n")


def test_an_empty_directory(before_work: Job) -> None:
    before_work.path("data").mkdir()
    code, err = before_work.run(f"--config.source.path={before_work.path('data')}")
    assert (code, err) == (2, f"{before_work.path('data')}: no such file, nor a directory with data files in it\n")


def test_a_file_nobody_may_read(before_work: Job) -> None:
    path = before_work.write("jsonl", lines(GOOD))
    with wrapped(lambda storage: Forbidding(storage, path)):
        assert before_work.run() == (2, f"{path}: permission denied\n")


class Forbidding(FaultyStorage):
    def __init__(self, storage: Storage, path: str):
        super().__init__(storage, Operations())
        self._path = path

    def open_read(self, uri: str, version: str | None = None) -> BinaryIO:
        if uri == self._path:
            raise StorageError(uri, "permission denied")
        return super().open_read(uri, version)


def test_a_file_that_breaks_off_later_fails_its_unit_and_the_others_are_kept(job: Job) -> None:
    """Where only reading to its end can tell: exit 1, the unit named, what is good committed."""
    rows = lines(*({"id": i, "text": f"text {i * i}"} for i in range(3000)))
    whole, cut = gzip.compress(rows), gzip.compress(rows)[:-2000]
    job.path("in").mkdir()
    job.path("in/a.jsonl.gz").write_bytes(whole)
    job.path("in/b.jsonl.gz").write_bytes(cut)
    code, err = job.run(f"--config.source.path={job.path('in')}")
    assert code == 1
    assert "1 of 2 units failed, the others are committed" in err
    assert f"unit 1: {job.path('in/b.jsonl.gz')}: the gzip data break off or are corrupt" in err
    assert err.rstrip().endswith("Mend the cause and run the same command to go on")
    assert [part.name for part in job.output.glob("part-*")] == ["part-00000-of-00002.jsonl"]
    assert not (job.output / "_SUCCESS").exists()


def test_in_a_process_of_its_own_no_jax_is_started(job: Job) -> None:
    path = job.write("parquet", WHOLE[: len(WHOLE) // 2])
    code = f"import sys; from batchinfer.cli import main; print(main([{str(job.file())!r}]), 'jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=launch_environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr.startswith(f"{path}: not a readable Parquet file (")
    assert done.stderr.count("\n") == 1
