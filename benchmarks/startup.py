"""How long one waits: from the start of the process to the first batch, and for the commands that only look.

The compilation cache is warm. `plan`, `status` and `schema` are whole ./launch.sh commands.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import (
    JOB,
    ROOT,
    SideError,
    Spread,
    arguments,
    environment,
    header,
    interleaved,
    launch,
    pin,
    table,
    wanted,
    write_texts,
)

FIRST_BATCH, WHOLE = "first batch", "the same run, to its end"
COLUMNS = ("what", "seconds", "least to most")
SECONDS_MAX = {FIRST_BATCH: 8.0, "plan": 1.5, "status": 1.5, "schema": 1.5}


def main() -> int:
    parser = arguments(__doc__, rows=3000, repeats=5)
    options = parser.parse_args()
    above = header()
    pin(options.cores)
    with tempfile.TemporaryDirectory() as work:
        spreads = measure(Path(work), options.rows, options.repeats)
    print(f"{above}\n- {options.rows:,} sentences, rounds: {options.repeats}\n")
    print(table(COLUMNS, [(name, *spread.cells(2)) for name, spread in spreads.items()]), end="\n\n")
    print("\n".join(wanted(name, spreads[name].median, most=most) for name, most in SECONDS_MAX.items()))
    return 0


def measure(work: Path, rows: int, repeats: int) -> dict[str, Spread]:
    """Seconds of each; a first run, not counted, fills the cache and makes the output that `status` looks at."""
    fields = {
        "source.path": write_texts(work / "texts.jsonl", rows),
        "sink.path": work / "output",
        "run.compile_cache": work / "cache",
    }
    job = [str(JOB), *(f"--config.{field}={value}" for field, value in fields.items())]
    first_batch(job)
    looking = {
        "plan": lambda: launch("plan", *job),
        "status": lambda: launch("status", work / "output"),
        "schema": lambda: launch("schema"),
    }
    runs = interleaved({FIRST_BATCH: lambda: first_batch(job)}, repeats)[FIRST_BATCH]
    looks = interleaved(looking, repeats)
    spreads = {FIRST_BATCH: Spread.of([run[0] for run in runs]), WHOLE: Spread.of([run[1] for run in runs])}
    return spreads | {name: Spread.of(seconds) for name, seconds in looks.items()}


def first_batch(job: Sequence[str]) -> tuple[float, float]:
    """Seconds from the start of the process to the job's first batch, and to its end."""
    command = [sys.executable, ROOT / "benchmarks" / "first_batch.py", *job, "--quiet", "--overwrite"]
    start = time.time()
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, check=False)
    end = time.time()
    if done.returncode:
        raise SideError(f"the job ended with status {done.returncode}: {done.stderr.strip()}")
    said = next(line for line in done.stdout.splitlines() if line.startswith("first batch: "))
    return float(said.removeprefix("first batch: ")) - start, end - start


if __name__ == "__main__":
    sys.exit(main())
