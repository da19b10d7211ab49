"""The most memory that a job has resident, over few and over many short rows: it must not grow with the input.

The model costs next to nothing, so that what is measured is the way of the rows. Each job is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, Spread, arguments, environment, header, interleaved, pin, table, wanted

COLUMNS = ("rows", "input, MiB", "peak, MiB", "least to most")
RUSAGE_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> int:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--few", type=int, default=50_000, help="rows of the small job (default 50,000)")
    parser.add_argument("--many", type=int, default=1_000_000, help="rows of the large job (default 1,000,000)")
    options = parser.parse_args()
    above = header()
    pin(options.cores)
    with tempfile.TemporaryDirectory() as work:
        print(f"{above}\n- rounds: {options.repeats}\n\n{measured(options, Path(work))}")
    return 0


def measured(options: argparse.Namespace, work: Path) -> str:
    inputs = {count: write_rows(work / f"{count}.jsonl", count) for count in (options.few, options.many)}
    peak_bytes(inputs[options.few], work)  # not counted: it fills the compilation cache
    sides = {str(count): lambda path=path: peak_bytes(path, work) for count, path in inputs.items()}
    peaks = {name: Spread.of([b / 2**20 for b in sizes]) for name, sizes in interleaved(sides, options.repeats).items()}
    rows = [
        (f"{count:,}", f"{path.stat().st_size / 2**20:,.1f}", *peaks[str(count)].cells(0))
        for count, path in inputs.items()
    ]
    ratio = peaks[str(options.many)].median / peaks[str(options.few)].median
    return f"{table(COLUMNS, rows)}\n\n{wanted('many by few', ratio, most=1.15)}"


def write_rows(path: Path, count: int) -> Path:
    """Texts of 5 to 28 letters, all different."""
    with path.open("w") as file:
        for number in range(count):
            text = f"{number:05x}" + "abcdefghijklmnopqrstuvwx"[: number * 7919 % 24]
            file.write(json.dumps({"id": number, "text": text}) + "\n")
    return path


def peak_bytes(rows: Path, work: Path) -> int:
    """Runs the job over `rows` and says how much of it was resident at most. RuntimeError if it fails."""
    job = work / "job.json"
    job.write_text(json.dumps(job_over(rows, work)))  # JSON is YAML
    command = [sys.executable, "-m", "batchinfer", str(job), "--quiet", "--overwrite"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)  # unlike RUSAGE_CHILDREN, of this child alone
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the job ended with status {process.returncode}")
    return usage.ru_maxrss * RUSAGE_UNIT


def job_over(rows: Path, work: Path) -> dict[str, object]:
    return {
        "name": "letter-sums",
        "source": {"format": "jsonl", "path": str(rows), "key": "id"},
        "task": {"kind": "custom", "module": "letter_sum:LetterSums"},
        "model": {"module": "letter_sum:build"},
        "batching": {"buckets": [16, 64]},
        "sink": {"format": "parquet", "path": str(work / "output")},
        "run": {"compile_cache": str(work / "cache")},
    }


if __name__ == "__main__":
    sys.exit(main())
