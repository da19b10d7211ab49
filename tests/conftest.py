"""What all tests stand on: a clean environment, several CPU devices, no network, a small job."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from batchinfer.job import LoadedJob, Override, load_text

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> None:
    """Only loopback and unix sockets: a test that needs more is wrong."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test tried to connect to {address}")
        connect(self, address)

    socket.socket.connect = guarded  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def compile_cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compiled programs shared by the tests of one worker."""
    return str(tmp_path_factory.getbasetemp() / "xla")


def letters(number: int) -> str:
    """A text of 1 to 40 letters that depends on `number` alone."""
    length = 1 + (number * 7919) % 40
    return "".join(chr(97 + (number * 31 + i * i) % 26) for i in range(length))


def write_jsonl(path: Path, rows: list[Mapping[str, Any]] | int) -> Path:
    """`rows` as JSON lines; a number stands for so many rows of letters."""
    if isinstance(rows, int):
        rows = [{"id": i, "text": letters(i)} for i in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


LETTERS_JOB = """
name: letters
source: {format: jsonl, path: PATH, key: id}
task: {kind: custom, module: "fakes:LetterTask"}
model: {module: "fakes:build"}
batching: {max_tokens: 256, buckets: [16, 64]}
sink: {format: jsonl}
errors: {max_rate: 1.0, backoff_seconds: 0.0}
run: {progress_seconds: 3600.0}
"""

JobMaker = Callable[..., LoadedJob]


@pytest.fixture
def letters_job(tmp_path: Path, compile_cache: str) -> JobMaker:
    """A job over the fake model: `letters_job(rows_or_path, **{"dotted.field": value})`."""

    def make(rows: list[Mapping[str, Any]] | int | Path, **settings: Any) -> LoadedJob:
        path = rows if isinstance(rows, Path) else write_jsonl(tmp_path / "in.jsonl", rows)
        defaults = {
            "source.path": str(path),
            "sink.path": str(tmp_path / "out"),
            "run.compile_cache": compile_cache,
        }
        overrides = [Override(field, value) for field, value in (defaults | settings).items()]
        return load_text(LETTERS_JOB, "letters.yaml", overrides)

    return make


def tree(output: Path | str) -> dict[str, bytes]:
    """All files of an output by path, but for `_batchinfer/runs/`, the only ones that differ from run to run."""
    root = Path(output)
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): p.read_bytes() for p in files if "_batchinfer/runs/" not in str(p)}


def predictions(output: Path | str) -> list[dict[str, Any]]:
    """The rows of a JSONL output, parts in order."""
    parts = sorted(Path(output).glob("part-*.jsonl"))
    return [orjson.loads(line) for part in parts for line in part.read_bytes().splitlines()]


def launch_environment(**extra: str) -> dict[str, str]:
    """For subprocesses: the repository and the test helpers on the path."""
    path = f"{REPOSITORY}:{REPOSITORY / 'tests'}"
    return {**os.environ, "PYTHONPATH": path, **extra}
