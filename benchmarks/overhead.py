"""What a whole job costs beyond its engine: rows per second of both, on the same rows.

The job reads, prepares, computes, finishes, writes and commits; its rate is its own report's, start-up apart. The bare
engine gets every row already tokenised, in windows of the job's size. It is measured twice, because a job loads its
compiled programs while it runs: with the programs still to be loaded from the cache, as for the job, and ready.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import (
    JOB,
    Spread,
    Worker,
    arguments,
    environment,
    header,
    interleaved,
    pin,
    serve,
    table,
    wanted,
    write_texts,
)

JOB_SIDE, ENGINE_SIDE = "job", "engine"
COLUMNS = ("what", "rows/s", "least to most", "the job reaches")


def main() -> int:
    parser = arguments(__doc__, rows=10_000, repeats=5)
    parser.add_argument("--side", choices=(JOB_SIDE, ENGINE_SIDE), help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(lambda: open_side(options.side, Path(options.work)))
        return 0
    above = header()
    pin(options.cores)
    with tempfile.TemporaryDirectory() as work:
        write_texts(texts_in(Path(work)), options.rows)
        measured = measure(work, options.repeats)
    print(f"{above}\n- {options.rows:,} sentences, rounds: {options.repeats}\n")
    print(rendered(options.rows, measured))
    return 0


def measure(work: str, repeats: int) -> dict[str, list[Mapping[str, Any]]]:
    command = [sys.executable, __file__, "--work", work, "--side"]
    with Worker([*command, JOB_SIDE], environment()) as job, Worker([*command, ENGINE_SIDE], environment()) as engine:
        return interleaved({JOB_SIDE: lambda: job.ask("go"), ENGINE_SIDE: lambda: engine.ask("go")}, repeats)


def rendered(rows: int, measured: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    jobs, engines = measured[JOB_SIDE], measured[ENGINE_SIDE]
    job = Spread.of([one["rows_per_second"] for one in jobs])
    loading = Spread.of([rows / one["loading_seconds"] for one in engines])
    ready = Spread.of([rows / one["ready_seconds"] for one in engines])
    lines = [
        ("whole job", *job.cells(0), ""),
        ("bare engine, loading its programs", *loading.cells(0), f"{job.median / loading.median:.1%}"),
        ("bare engine, programs ready", *ready.cells(0), f"{job.median / ready.median:.1%}"),
    ]
    startup = Spread.of([one["startup_seconds"] for one in jobs])
    compiling = Spread.of([one["compile_seconds"] for one in jobs])
    apart = (
        f"- apart: start-up of the job {startup.median:.1f} s; loading its programs {compiling.median:.1f} s, "
        f"added over threads; padding {jobs[0]['padding_share']:.1%} (job), {engines[0]['padding_share']:.1%} (engine)"
    )
    share = wanted("job by bare engine, both loading their programs", job.median / loading.median, least=0.95)
    return f"{table(COLUMNS, lines)}\n\n{apart}\n{share}"


# --- the sides, each in a process of its own ------------------------------------------------------------------------


def open_side(side: str, work: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Runs once before it is ready: that fills the compilation cache, each side's its own."""
    overrides = {
        "source.path": str(texts_in(work)),
        "sink.path": str(work / "output"),
        "run.compile_cache": str(work / f"cache-{side}"),
    }
    once = run_job if side == JOB_SIDE else run_engine
    once(overrides)
    return {}, {"go": lambda: once(overrides)}


def run_job(overrides: dict[str, Any]) -> Mapping[str, Any]:
    import batchinfer

    return batchinfer.run(batchinfer.load_job(JOB, overrides), overwrite=True, quiet=True).to_dict()


def run_engine(overrides: dict[str, Any]) -> Mapping[str, Any]:
    from bare import Bare

    bare = Bare(overrides)
    try:
        examples = bare.prepared()
        start = time.perf_counter()
        bare.embed(examples)
        loaded = time.perf_counter()
        bare.embed(examples)
        ready = time.perf_counter()
        padding = bare.engine.counters().padding_share
        return {"loading_seconds": loaded - start, "ready_seconds": ready - loaded, "padding_share": padding}
    finally:
        bare.close()


def texts_in(work: Path) -> Path:
    return work / "texts.jsonl"


if __name__ == "__main__":
    sys.exit(main())
