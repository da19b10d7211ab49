"""Outputs that cannot be written, are full, or are another job's."""

from __future__ import annotations

import io
import sys
from typing import Any, BinaryIO

import pytest
from conftest import tree
from embed_jobs import GOOD, Job, lines
from faults import FaultyStorage, Operations

from batchinfer.errors import OutOfSpaceError, StorageError
from batchinfer.storage import Storage, wrapped


@pytest.mark.parametrize("below", ["", "/out"])
def test_an_output_that_cannot_be_written_is_known_before_work(before_work: Job, below: str) -> None:
    before_work.write("jsonl", lines(GOOD))
    before_work.path("file").write_text("in the way")
    wanted = f"{before_work.path('file')}{below}"
    assert before_work.run(f"--config.sink.path={wanted}") == (
        2,
        f"sink.path: {wanted}: cannot be written to (part of its path is a file, not a directory); "
        "give a directory that can be\n",
    )


def test_an_output_nobody_may_write_to_is_known_before_work(before_work: Job) -> None:
    before_work.write("jsonl", lines(GOOD))
    with wrapped(ReadOnly):
        assert before_work.run() == (
            2,
            f"sink.path: {before_work.output}: cannot be written to (permission denied); "
            "give a directory that can be\n",
        )


class ReadOnly(FaultyStorage):
    def __init__(self, storage: Storage):
        super().__init__(storage, Operations())

    def write(self, uri: str, data: bytes) -> None:
        raise StorageError(uri, "permission denied")


@pytest.mark.parametrize("what", ["source", "sink"])
def test_a_scheme_nobody_serves(before_work: Job, what: str) -> None:
    before_work.write("jsonl", lines(GOOD))
    code, err = before_work.run(f"--config.{what}.path=ftp://host/x")
    assert (code, err) == (2, 'ftp://host/x: scheme "ftp" is not served; give a local path or a file:// uri\n')


class Disk:
    """Room for so many bytes, shared by all storages on it."""

    def __init__(self, room: int):
        self._room = room

    def take(self, uri: str, size: int) -> None:
        if size > self._room:
            self._room = 0
            raise OutOfSpaceError(uri, "no space left on the device; free some and run again to resume")
        self._room -= size


class OnDisk(FaultyStorage):
    """A storage on a small disk."""

    def __init__(self, storage: Storage, disk: Disk):
        super().__init__(storage, Operations())
        self._disk = disk

    def open_write(self, uri: str) -> BinaryIO:
        return StreamOnDisk(super().open_write(uri), uri, self._disk)  # type: ignore[return-value]

    def write(self, uri: str, data: bytes) -> None:
        self._disk.take(uri, len(data))
        super().write(uri, data)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        self._disk.take(uri, len(data))
        return super().put_if_absent(uri, data)


class StreamOnDisk(io.RawIOBase):
    def __init__(self, stream: BinaryIO, uri: str, disk: Disk):
        self._stream, self._uri, self._disk = stream, uri, disk

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._disk.take(self._uri, memoryview(data).nbytes)
        return self._stream.write(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@pytest.mark.parametrize(("room", "where"), [(100, "_batchinfer/plan.json"), (50_000, "_batchinfer/staging/")])
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(job: Job, room: int, where: str) -> None:
    job.write("jsonl", lines(*({"id": i, "text": f"a cat {i}"} for i in range(300))))
    cut = "--config.source.unit_bytes=2000"
    assert job.run(cut, f"--config.sink.path={job.path('golden')}") == (0, "")
    disk = Disk(room)
    with wrapped(lambda storage: OnDisk(storage, disk)):
        code, err = job.run(cut)
    assert code == 1
    assert err.startswith(f"{job.output}/{where}")
    assert err.endswith(": no space left on the device; free some and run again to resume\n")
    assert err.count("\n") == 1
    committed = len(list(job.output.glob("_batchinfer/commits/*.json")))
    assert 0 <= committed < 5
    assert job.run(cut) == (0, "")
    assert len(job.keys()) == 300
    golden = tree(job.path("golden"))
    assert {path: data for path, data in tree(job.output).items() if golden[path] != data}.keys() <= {
        "_batchinfer/plan.json"  # it names its own output
    }


def test_another_jobs_output_is_refused_with_what_changed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.write("jsonl", lines(GOOD))
    assert job.run() == (0, "")
    kept = tree(job.output)
    monkeypatch.setitem(sys.modules, "batchinfer.runners.launch", None)
    assert job.run("--config.task.normalize=false") == (
        2,
        f"{job.output}: holds the output of another plan; changed: task.normalize: True -> False. "
        "Give another --config.sink.path, or --overwrite to start anew\n",
    )
    assert tree(job.output) == kept


def test_part_files_of_no_plan_are_not_mixed_in(job: Job) -> None:
    job.write("jsonl", lines(GOOD))
    job.output.mkdir()
    (job.output / "part-00007-of-00009.jsonl").write_text("{}\n")
    assert job.run() == (
        2,
        f"{job.output}: already holds part-00007-of-00009.jsonl, which no plan accounts for. "
        "Give another --config.sink.path, or --overwrite to remove it\n",
    )


@pytest.mark.parametrize("plan", [b"", b"{}", b"[1]", b"\xff"])
def test_a_plan_that_cannot_be_read(before_work: Job, plan: bytes) -> None:
    before_work.write("jsonl", lines(GOOD))
    (before_work.output / "_batchinfer").mkdir(parents=True)
    (before_work.output / "_batchinfer/plan.json").write_bytes(plan)
    code, err = before_work.run()
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"{before_work.output}/_batchinfer/plan.json: is not a plan this version can read (")
    assert err.endswith("Give another --config.sink.path, or --overwrite to start anew\n")


def test_a_passed_through_field_that_the_output_has_already(job: Job) -> None:
    job.write("jsonl", lines({**GOOD, "embedding": "mine"}))
    code, err = job.run("--config.sink.include=[embedding]")
    assert (code, err) == (
        2,
        "sink.format: column embedding: stands 2 times in the output; "
        "leave it out of sink.include, or rename it in the input\n",
    )
