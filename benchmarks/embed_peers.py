"""Embeddings per second: our engine, sentence-transformers, onnxruntime and CTranslate2 on the same sentences.

Each side runs in a process of its own and is warm before it is measured; they take turns, round by round. Tokenising
and pooling are part of every side's time, loading and compiling of none. Cosines are to sentence-transformers float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import (
    SideError,
    Spread,
    Worker,
    arguments,
    environment,
    header,
    interleaved,
    model_directory,
    pin,
    say,
    table,
    wanted,
    write_texts,
)

REFERENCE = "sentence-transformers-float32"


@dataclass(frozen=True, slots=True)
class Side:
    label: str
    precision: str
    ours: bool = False


SIDES = {
    "batchinfer-auto": Side("batchinfer, default", "bfloat16 products, float32 sums", ours=True),
    "batchinfer-float32": Side("batchinfer", "float32", ours=True),
    "sentence-transformers-bfloat16": Side("sentence-transformers", "bfloat16"),
    REFERENCE: Side("sentence-transformers", "float32"),
    "onnxruntime-float32": Side("onnxruntime", "float32"),
    "ctranslate2-float32": Side("CTranslate2", "float32"),
}
COLUMNS = ("side", "precision", "sentences/s", "least to most", "default is x faster", "least cosine", "how it ran")


@dataclass(frozen=True, slots=True)
class Result:
    sentences_per_second: Spread
    least_cosine: float
    note: str


def main() -> int:
    parser = arguments(__doc__, rows=3000, repeats=5)
    parser.add_argument("--peers-python", help="Python of the peers' environment (see README.md)")
    options = parser.parse_args()
    above = header(options.peers_python)
    pin(options.cores)
    with tempfile.TemporaryDirectory() as work:
        results, skipped = measure(options, Path(work))
    print(f"{above}\n- {options.rows:,} sentences, rounds: {options.repeats}\n")
    print(rendered(results, skipped))
    print("\n" + "\n".join(verdicts(results)))
    return 0


def measure(options: argparse.Namespace, work: Path) -> tuple[dict[str, Result], dict[str, str]]:
    """Results by side, and why the others were skipped."""
    texts = write_texts(work / "texts.jsonl", options.rows)
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        skipped: dict[str, str] = {}
        for name, side in SIDES.items():  # one after the other: each tries what is fastest while it has the machine
            try:
                workers[name] = stack.enter_context(opened(name, side, options.peers_python, texts, work))
                say(f"{name}: {workers[name].ready['note']}")
            except SideError as error:
                skipped[name] = str(error)
                say(f"{name}: skipped: {error}")
        rounds = {name: lambda w=w: w.ask("go")["seconds"] for name, w in workers.items()}
        seconds = interleaved(rounds, options.repeats)
        vectors = {name: saved(worker, work / f"{name}.npy") for name, worker in workers.items()}
    results = {
        name: Result(
            Spread.of([options.rows / s for s in seconds[name]]),
            least_cosine(vectors[name], vectors[REFERENCE]) if REFERENCE in vectors else float("nan"),
            worker.ready["note"],
        )
        for name, worker in workers.items()
    }
    return results, skipped


def opened(name: str, side: Side, peers_python: str | None, texts: Path, work: Path) -> Worker:
    python = sys.executable if side.ours else peers_python
    if python is None:
        raise SideError("no --peers-python")
    command = [python, Path(__file__).with_name("embed_sides.py"), name]
    folder = work / name
    folder.mkdir()
    flags = ["--texts", texts, "--model", model_directory(), "--work", folder]
    return Worker([*command, *flags], environment(OMP_NUM_THREADS=str(len(os.sched_getaffinity(0)))))


def saved(worker: Worker, path: Path) -> np.ndarray:
    worker.ask("save", str(path))
    return np.load(path)


def least_cosine(ours: np.ndarray, reference: np.ndarray) -> float:
    """Of all rows; float32[N, D] each."""
    a, b = ours.astype(np.float64), reference.astype(np.float64)
    return float(np.min(np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))


# --- showing --------------------------------------------------------------------------------------------------------


def rendered(results: Mapping[str, Result], skipped: Mapping[str, str]) -> str:
    rows = [row(SIDES[name], result, ratio(results, name)) for name, result in results.items()]
    rows += [(SIDES[name].label, SIDES[name].precision, "skipped", "", "", "", why) for name, why in skipped.items()]
    return table(COLUMNS, rows)


def row(side: Side, result: Result, faster: float) -> tuple[str, ...]:
    cells = result.sentences_per_second.cells(0)
    return (side.label, side.precision, *cells, f"{faster:.2f}", f"{result.least_cosine:.7f}", result.note)


def ratio(results: Mapping[str, Result], to: str, ours: str = "batchinfer-auto") -> float:
    """How many times as fast ours is, by medians; NaN where one of the two was skipped."""
    if ours not in results or to not in results:
        return float("nan")
    return results[ours].sentences_per_second.median / results[to].sentences_per_second.median


def verdicts(results: Mapping[str, Result]) -> list[str]:
    cosine = {name: results[name].least_cosine for name in results}
    nan = float("nan")
    return [
        wanted("default against their bfloat16", ratio(results, "sentence-transformers-bfloat16"), least=1.7),
        wanted("default against their float32", ratio(results, REFERENCE), least=4),
        wanted("float32 against their float32", ratio(results, REFERENCE, "batchinfer-float32"), least=1.4),
        wanted("least cosine, default", cosine.get("batchinfer-auto", nan), least=0.9999),
        wanted("least cosine, float32", cosine.get("batchinfer-float32", nan), least=0.999999),
    ]


if __name__ == "__main__":
    sys.exit(main())
