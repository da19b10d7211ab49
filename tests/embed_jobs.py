"""A job file over a tiny BERT, and the command line that runs it: 24 numbers a vector, 40 tokens a text at most, a token
for every letter."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import REPOSITORY, predictions

from batchinfer.cli import main

CHECKPOINT = REPOSITORY / "tests/goldens/bert-none"
GOOD = {"id": 0, "text": "a cat sat"}

JOB = """\
name: embed
source: {format: FORMAT, path: PATH, key: id}
task: {kind: embed}
model: {checkpoint: CHECKPOINT, dtype: float32}
batching: {buckets: [8, 40], max_tokens: 320}
sink: {format: jsonl, path: OUT}
errors: {max_rate: 1.0, retries: 0}
run: {units_in_flight: 1, compile_cache: CACHE}
"""


@dataclass
class Job:
    """A job file in `directory`; `run` is the command line."""

    directory: Path
    capsys: Any
    caplog: Any
    cache: str
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.directory / "out"

    def path(self, name: str) -> Path:
        return self.directory / name

    def write(self, form: str, data: bytes, name: str | None = None) -> str:
        """Makes `data` the job's input; its path."""
        path = self.path(name or f"in.{form}")
        path.write_bytes(data)
        self.settings |= {"FORMAT": form, "PATH": str(path)}
        return str(path)

    def file(self) -> Path:
        """Writes the job file."""
        defaults = {
            "FORMAT": "jsonl",
            "PATH": str(self.path("in.jsonl")),
            "CHECKPOINT": str(CHECKPOINT),
            "OUT": str(self.output),
            "CACHE": self.cache,
        }
        text = JOB
        for name, value in (defaults | self.settings).items():
            text = text.replace(name, json.dumps(value))
        self.path("job.yaml").write_text(text)
        return self.path("job.yaml")

    def run(self, *flags: str) -> tuple[int, str]:
        """The exit code, and what went to stderr; never a traceback."""
        self.capsys.readouterr()
        code = main([str(self.file()), "--quiet", *flags])
        self.said = self.capsys.readouterr()
        assert "Traceback" not in self.said.err + self.caplog.text
        return code, self.said.err

    def rejected(self) -> list[dict[str, Any]]:
        parts = sorted(self.output.glob("rejected/part-*.jsonl"))
        return [orjson.loads(line) for part in parts for line in part.read_bytes().splitlines()]

    def reasons(self) -> list[tuple[Any, int, str, str]]:
        """key, row, stage, error of each rejection."""
        return [(row["key"], row["row"], row["stage"], row["error"]) for row in self.rejected()]

    def keys(self) -> list[Any]:
        """Of the rows that were predicted, each with its vector."""
        rows = predictions(self.output)
        assert all(len(row["embedding"]) == 24 for row in rows)
        return [row["id"] for row in rows]


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows)


def parquet(**columns: list[Any]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()
