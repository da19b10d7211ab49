"""Apache Beam spreads unit ids over workers; the only place that imports it (besides the public handler).

An element is a unit id, never a row: Create | Reshuffle | ParDo(RunUnits) | combine. Beam decides where a unit runs;
retry, resume and exactly-once are the ledger's. Knows nothing of rows, models or files.
"""

from __future__ import annotations

import argparse
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict

import orjson

logging.disable(logging.WARNING)  # at import, Beam warns of cloud clients that are not installed and not wanted
import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner  # noqa: E402
from apache_beam.transforms.window import GlobalWindow  # noqa: E402
from apache_beam.utils.windowed_value import WindowedValue  # noqa: E402

logging.disable(logging.NOTSET)

from batchinfer.errors import Fault, OutOfSpaceError, SpecError, UnitsFailedError  # noqa: E402
from batchinfer.job.suggest import did_you_mean  # noqa: E402
from batchinfer.runners.pool import Outcome, UnitPool  # noqa: E402
from batchinfer.runners.worker import Ticket, pool_for  # noqa: E402

FAILURES_KEPT = 100

log = logging.getLogger(__name__)


class RunUnits(beam.DoFn):
    """Runs the units it is given, several at once, on this process's engine; emits one JSON outcome a unit."""

    def __init__(self, ticket: Ticket):
        self._ticket = ticket

    def start_bundle(self) -> None:
        self._pool: UnitPool = pool_for(self._ticket)
        self._pending: deque[Future[Outcome]] = deque()

    def process(self, unit: int) -> Iterator[bytes]:
        self._pending.append(self._pool.submit(unit))
        while len(self._pending) > self._pool.width:
            yield _encode(self._pending.popleft().result())

    def finish_bundle(self) -> Iterator[WindowedValue]:  # type: ignore[override]
        window = GlobalWindow()
        while self._pending:
            yield WindowedValue(_encode(self._pending.popleft().result()), window.max_timestamp(), (window,))


class Tally(beam.CombineFn):
    """Counts committed units and keeps the first failures: bounded, whatever the number of units."""

    def create_accumulator(self) -> tuple[int, list[Outcome]]:
        return 0, []

    def add_input(self, total: tuple[int, list[Outcome]], outcome: bytes) -> tuple[int, list[Outcome]]:
        return self.merge_accumulators([total, _tally(Outcome(**orjson.loads(outcome)))])

    def merge_accumulators(self, totals: Iterable[tuple[int, list[Outcome]]]) -> tuple[int, list[Outcome]]:
        committed, failed = 0, []
        for count, failures in totals:
            committed += count
            failed += failures
        return committed, sorted(failed, key=lambda outcome: outcome.unit)[:FAILURES_KEPT]

    def extract_output(self, total: tuple[int, list[Outcome]]) -> bytes:
        return orjson.dumps({"committed": total[0], "failed": [asdict(outcome) for outcome in total[1]]})


class Leave(beam.DoFn):
    """Leaves the tally where the launcher finds it, whatever machine this runs on."""

    def __init__(self, ticket: Ticket):
        self._ticket = ticket

    def process(self, tally: bytes) -> None:
        try:
            self._ticket.leave(tally)
        except OutOfSpaceError as error:  # the runner would print a traceback, and trying again would not help
            log.error("how the units ended could not be left for the launcher: %s", error)


def run_units(units: Sequence[int], ticket: Ticket, options: Mapping[str, object]) -> list[Outcome]:
    """Runs units on the runner that the options name (default: FnApiRunner, in this process).

    Returns those that failed for good (at most 100; none if the disk was too full to say which).
    Raises SpecError for options that Beam does not know.
    """
    runner, rest = _split_runner(options)
    pipeline = beam.Pipeline(runner=runner, options=PipelineOptions.from_dictionary(rest))
    _ = (
        pipeline
        | "units" >> beam.Create(list(units))
        | "spread" >> beam.Reshuffle()
        | "run" >> beam.ParDo(RunUnits(ticket)).with_output_types(bytes)
        | "tally" >> beam.CombineGlobally(Tally()).with_output_types(bytes)
        | "leave" >> beam.ParDo(Leave(ticket))
    )
    try:
        pipeline.run().wait_until_finish()
    except (RuntimeError, ValueError, OSError) as error:  # what runners raise for whatever went wrong in or below them
        raise UnitsFailedError(f"the Beam runner gave up: {str(error).strip().splitlines()[0]}") from error
    tally = ticket.collect()
    return [] if tally is None else [Outcome(**row) for row in orjson.loads(tally)["failed"]]


def check_options(options: Mapping[str, object]) -> None:
    """Raises SpecError naming every option that no Beam component declares."""
    known = {"runner"}
    for options_class in _subclasses(PipelineOptions):
        parser = argparse.ArgumentParser(add_help=False)
        options_class._add_argparse_args(parser)
        known |= {action.dest for action in parser._actions}
    faults = [
        Fault("", f"run.beam_options.{name}", f"Beam has no such option{did_you_mean(name, known)}")
        for name in options
        if name not in known
    ]
    if faults:
        raise SpecError(faults)


def _split_runner(options: Mapping[str, object]) -> tuple[FnApiRunner | str, dict[str, object]]:
    """DirectRunner would first try to download a Prism binary: local runs name FnApiRunner, and so do we."""
    rest = dict(options)
    name = rest.pop("runner", "FnApiRunner")
    return (FnApiRunner() if name in ("FnApiRunner", "DirectRunner") else str(name)), rest


def _subclasses(root: type) -> Iterator[type]:
    for sub in root.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _encode(outcome: Outcome) -> bytes:
    return orjson.dumps(asdict(outcome))


def _tally(outcome: Outcome) -> tuple[int, list[Outcome]]:
    return (1, []) if outcome.committed else (0, [outcome] if outcome.error else [])
