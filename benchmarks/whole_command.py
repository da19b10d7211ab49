"""Seconds of a whole command: JSON lines in, Parquet files out, imports and loading included.

Ours with a warm compilation cache and with an empty one, against what one would write with Beam or Ray Data around
sentence-transformers. Every command starts a new process and writes a new output; they take turns, round by round.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow.dataset as ds
from common import (
    JOB,
    MAX_LENGTH,
    SideError,
    Spread,
    arguments,
    environment,
    header,
    interleaved,
    launch,
    model_directory,
    pin,
    say,
    table,
    timed,
    wanted,
    write_texts,
)

WARM, COLD = "batchinfer, warm cache", "batchinfer, empty cache"
BEAM, RAY = "Beam RunInference, bfloat16", "Ray Data map_batches, bfloat16"
PEER_SCRIPTS = {BEAM: "beam_sentence_transformers.py", RAY: "ray_sentence_transformers.py"}
COLUMNS = ("command", "seconds", "least to most", "ours (warm) takes this share")


class Commands:
    """The sides: each call is one whole command, and makes sure that every row is in the output."""

    def __init__(self, texts: Path, rows: int, work: Path, peers_python: str | None):
        self._texts, self._rows, self._work, self._peers_python = texts, rows, work, peers_python
        self._numbers = itertools.count()

    def ours(self, cache: Path) -> float:
        output = self._fresh()
        fields = {"source.path": self._texts, "sink.path": output, "run.compile_cache": cache}
        seconds = launch(JOB, *(f"--config.{field}={value}" for field, value in fields.items()), "--quiet")
        return self._checked(seconds, output)

    def warm(self) -> float:
        return self.ours(self._work / "cache")

    def cold(self) -> float:
        return self.ours(self._fresh())

    def peer(self, name: str) -> float:
        if self._peers_python is None:
            raise SideError("no --peers-python")
        output = self._fresh()
        output.mkdir()
        script = Path(__file__).with_name("peers") / PEER_SCRIPTS[name]
        flags = ["--model", model_directory(), "--dtype", "bfloat16", "--max_length", str(MAX_LENGTH)]
        seconds = timed([self._peers_python, script, self._texts, output, *flags], environment())
        return self._checked(seconds, output)

    def sides(self) -> dict[str, Callable[[], float]]:
        return {WARM: self.warm, COLD: self.cold} | {name: lambda n=name: self.peer(n) for name in PEER_SCRIPTS}

    def _fresh(self) -> Path:
        return self._work / f"fresh-{next(self._numbers)}"

    def _checked(self, seconds: float, output: Path) -> float:
        rows = ds.dataset(sorted(map(str, output.glob("*.parquet")))).count_rows()
        if rows != self._rows:
            raise SideError(f"{rows} rows came out, {self._rows} went in")
        return seconds


def main() -> int:
    parser = arguments(__doc__, rows=3000, repeats=3)
    parser.add_argument("--peers-python", help="Python of the peers' environment (see README.md)")
    options = parser.parse_args()
    above = header(options.peers_python)
    pin(options.cores)
    with tempfile.TemporaryDirectory() as work:
        seconds, skipped = measure(options, Path(work))
    print(f"{above}\n- {options.rows:,} sentences, rounds: {options.repeats}\n")
    print(rendered(seconds, skipped))
    print("\n" + "\n".join(verdicts(seconds)))
    return 0


def measure(options: argparse.Namespace, work: Path) -> tuple[dict[str, Spread], dict[str, str]]:
    """Seconds by command, and why the others were skipped. A first run of each, not counted, fills file caches too."""
    commands = Commands(write_texts(work / "texts.jsonl", options.rows), options.rows, work, options.peers_python)
    sides, skipped = commands.sides(), {}
    for name in list(sides):
        say(f"{name}: first run")
        try:
            sides[name]()
        except SideError as error:
            skipped[name] = str(error)
            say(f"{name}: skipped: {error}")
            del sides[name]
    seconds = interleaved(sides, options.repeats)
    return {name: Spread.of(values) for name, values in seconds.items()}, skipped


def rendered(seconds: Mapping[str, Spread], skipped: Mapping[str, str]) -> str:
    rows = [(name, *spread.cells(1), f"{share(seconds, name):.2f}") for name, spread in seconds.items()]
    return table(COLUMNS, rows + [(name, "skipped", why, "") for name, why in skipped.items()])


def share(seconds: Mapping[str, Spread], of: str, ours: str = WARM) -> float:
    """Our seconds by theirs; NaN where one of the two was skipped."""
    return seconds[ours].median / seconds[of].median if {ours, of} <= seconds.keys() else float("nan")


def verdicts(seconds: Mapping[str, Spread]) -> list[str]:
    return [
        wanted("warm, by Beam", share(seconds, BEAM), most=0.7),
        wanted("warm, by Ray Data", share(seconds, RAY), most=0.45),
        wanted("empty cache, by Beam", share(seconds, BEAM, COLD), most=1),
        wanted("empty cache, by Ray Data", share(seconds, RAY, COLD), most=1),
    ]


if __name__ == "__main__":
    sys.exit(main())
