"""P2, exactly once: killed at every storage operation and run again, the output is the undisturbed one's, byte for byte.

In one process: storage that dies before or after its k-th writing operation, for every k, and storage that did what
it was asked and then reports a time-out. In processes of their own: kill -9 at arbitrary moments.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import launch_environment, tree
from faults import Dying, FaultyStorage, Killed, Lying, Operations

import batchinfer
from batchinfer.errors import BatchInferError
from batchinfer.storage import wrapped

CHUNKS = 4
ROWS = [{"id": i, "text": "" if i % 50 == 7 else "abcdefgh"[: 1 + i % 8]} for i in range(240)]
SMALL = {"source.unit_bytes": 4096, "run.units_in_flight": 1}


def run(job, operations=None, overwrite=False):
    """One run; what it raised, if it did. Beam wraps what a unit raises, so any exception counts as an end."""
    with wrapped(lambda storage: FaultyStorage(storage, operations or Operations())):
        try:
            batchinfer.run(job, quiet=True, overwrite=overwrite)
        except (Killed, Exception) as error:  # noqa: BLE001 - the next run shows what it left behind
            return error
    return None


@pytest.fixture
def golden(letters_job, tmp_path):
    """The undisturbed run: its files, and how many writing operations it took."""
    operations = Operations()
    job = letters_job(ROWS, **SMALL, **{"sink.path": str(tmp_path / "golden")})
    assert run(job, operations) is None
    return tree_of(tmp_path / "golden"), operations.count


def tree_of(output):
    return {path: data for path, data in tree(output).items() if path != "_batchinfer/plan.json"}


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_p2_killed_at_every_storage_operation(letters_job, tmp_path, golden, after, chunk):
    files, operations = golden
    for at in range(1 + chunk, operations + 1, CHUNKS):
        output = tmp_path / f"at{at}"
        job = letters_job(tmp_path / "in.jsonl", **SMALL, **{"sink.path": str(output)})
        died = run(job, Dying(at, after))
        assert died is not None, f"operation {at} was never reached"
        committed = len(list((output / "_batchinfer/commits").glob("[0-9]*.json")))
        success = (output / "_SUCCESS").exists()
        again = batchinfer.run(job, quiet=True)
        assert again.units_reused == committed, f"killed at operation {at}: committed units were computed again"
        assert tree_of(output) == files, f"killed at operation {at}"
        assert not success or again.state == "nothing to do"
        assert batchinfer.verify(str(output)) == []


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_p2_done_but_reported_as_a_time_out(letters_job, tmp_path, golden, chunk):
    files, operations = golden
    for at in range(1 + chunk, operations + 1, CHUNKS):
        output = tmp_path / f"at{at}"
        job = letters_job(tmp_path / "in.jsonl", **SMALL, **{"sink.path": str(output)})
        error = run(job, Lying(at))
        assert error is None or isinstance(error, BatchInferError), f"operation {at}: {error!r}"
        batchinfer.run(job, quiet=True)
        assert tree_of(output) == files, f"lied at operation {at}"


def test_p2_overwrite_killed_at_every_operation(letters_job, tmp_path, golden):
    """An --overwrite that is killed half-way leaves an output that the next run completes, without a trace of the old."""
    files, operations = golden
    old = {"sink.path": str(tmp_path / "out"), "source.unit_bytes": 2048, "run.units_in_flight": 1}
    new = letters_job(tmp_path / "in.jsonl", **SMALL, **{"sink.path": str(tmp_path / "out")})
    for at in range(1, operations + 12, 3):
        assert run(letters_job(tmp_path / "in.jsonl", **old), overwrite=True) is None
        run(new, Dying(at, after=True), overwrite=True)
        if run(new) is not None:  # the old plan still owned the directory: nothing had happened yet
            assert run(new, overwrite=True) is None
        assert tree_of(tmp_path / "out") == files, f"killed at operation {at}"


SCRIPT = """
import sys
import batchinfer
from batchinfer.job import load_text
batchinfer.run(load_text(open(sys.argv[1]).read(), "job.yaml"), quiet=True)
"""


def test_p2_kill_9_at_arbitrary_moments(letters_job, tmp_path, golden):
    files, _ = golden
    from batchinfer.job import describe

    job = letters_job(tmp_path / "in.jsonl", **SMALL, **{"sink.path": str(tmp_path / "killed")})
    (tmp_path / "job.yaml").write_text(describe(job.spec))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "job.yaml")]
    commits = tmp_path / "killed/_batchinfer/commits"
    chance = random.Random(0)
    for wanted in (0, 1, 3):  # wait for so many commits, then a little, then kill
        process = subprocess.Popen(command, env=launch_environment(), start_new_session=True)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if commits.is_dir() and len(list(commits.glob("[0-9]*.json"))) >= wanted:
                time.sleep(chance.random() * 0.05)
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait(120)
    report = batchinfer.run(job, quiet=True)
    assert report.rows_in == len(ROWS)
    assert tree_of(tmp_path / "killed") == files
