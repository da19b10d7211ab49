"""The command line: words and flags in, one call of the API, lines and an exit code out. No logic of its own.

Exit codes: 0 done, 1 failed units or output that does not verify, 2 bad job or conflict, 3 error budget exceeded,
75 interrupted (run again to go on).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date as Date
from types import FrameType

from absl import flags

from batchinfer import api
from batchinfer.errors import (
    EXIT_BAD_JOB,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    BatchInferError,
    Fault,
    InterruptedRun,
    SpecError,
)
from batchinfer.halt import Halt
from batchinfer.job import LoadedJob, Override, json_schema
from batchinfer.report.plan import render_plan, render_samples, render_status
from batchinfer.report.summary import render

USAGE = """\
Usage: ./launch.sh JOB.yaml [flags]         run a job, or what an earlier run left of it
       ./launch.sh plan JOB.yaml [flags]    the resolved job, its units, and what is already done
       ./launch.sh schema                   JSON Schema of the job file, for editors
       ./launch.sh status OUT               how far an output is
       ./launch.sh verify OUT               recount and re-checksum a finished output (exit 0 or 1)
       ./launch.sh errors OUT [--replay]    list the rejected rows, or run only them again into OUT-replay
       ./launch.sh convert SRC DST          write an Orbax checkpoint from a Hugging Face directory
       ./launch.sh test                     set up what the tests need and run them

Any field of the job:  --config.batching.max_tokens=8192  --config.sink.path=out/other  --config.source.limit=null
Overlays:              --config=configs/cpu.py  --config=configs/site.py:arg   (in order; flags win)
"""


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string("config", [], "Python overlay, path[:argument]; may be repeated.", flag_values=values)
    flags.DEFINE_multi_string("param", [], "Value for ${params.x}, as x=value; may be repeated.", flag_values=values)
    flags.DEFINE_string("date", None, "Value for ${date}, YYYY-MM-DD; default today (UTC).", flag_values=values)
    flags.DEFINE_integer("limit", None, "Take only the first N records of the plan.", 1, flag_values=values)
    flags.DEFINE_float("sample", None, "Take about this share of the records.", flag_values=values)
    flags.DEFINE_bool("dry_run", False, "Show the first predictions, write nothing.", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "Start anew, whatever the output holds.", flag_values=values)
    flags.DEFINE_bool("replay", False, "With `errors`: run only the rejected rows again.", flag_values=values)
    flags.DEFINE_bool("quiet", False, "No progress; the summary only.", flag_values=values)
    flags.DEFINE_bool("help", False, "This text.", short_name="h", flag_values=values)


@dataclass(frozen=True, slots=True)
class Command:
    """A parsed command line: the words after the command, and the flags."""

    words: tuple[str, ...]
    flags: flags.FlagValues
    overrides: tuple[Override, ...]

    def one_word(self, what: str) -> str:
        if len(self.words) != 1:
            raise SpecError([Fault("", "", f"needs {what} and nothing else; got {list(self.words)}")])
        return self.words[0]

    def job(self) -> LoadedJob:
        return api.load_job(
            self.one_word("one job file"),
            self.overrides,
            overlays=self.flags.config,
            params=dict(_pair(text) for text in self.flags.param),
            date=_date(self.flags.date),
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for library in ("absl", "asyncio"):  # Orbax warns at length there of what it then raises
        logging.getLogger(library).setLevel(logging.CRITICAL)
    if os.getcwd() not in sys.path:  # where a job's own modules are looked for, however this was started
        sys.path.insert(0, os.getcwd())
    try:
        return _dispatch(sys.argv[1:] if argv is None else list(argv))
    except BatchInferError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; run the same command to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of our output left: not our failure, but not success either
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _dispatch(argv: list[str]) -> int:
    command = parse(argv)
    if command.flags.help or not command.words:
        print(USAGE + "\n" + command.flags.main_module_help())
        return EXIT_DONE if command.flags.help else EXIT_BAD_JOB
    name = command.words[0]
    if name not in COMMANDS:
        return _run(command)
    return COMMANDS[name](Command(command.words[1:], command.flags, command.overrides))


def parse(argv: Sequence[str]) -> Command:
    """Raises SpecError for a flag that does not exist or cannot be read."""
    values = flags.FlagValues()
    define_flags(values)
    settings = [argument for argument in argv if argument.startswith("--config.")]
    rest = [argument for argument in argv if not argument.startswith("--config.")]
    try:
        words = values(["launch.sh", *rest])[1:]
    except flags.Error as error:
        raise SpecError([Fault("", "", f"{error}; ./launch.sh --help lists the flags")]) from error
    sugar = [("source.limit", values.limit, "--limit"), ("source.sample", values.sample, "--sample")]
    overrides = [Override(field, value, flag) for field, value, flag in sugar if value is not None]
    return Command(tuple(words), values, (*(Override.from_flag(setting) for setting in settings), *overrides))


# --- commands -------------------------------------------------------------------------------------------------------


def _run(command: Command) -> int:
    job = command.job()
    if command.flags.dry_run:
        return _dry_run(job)
    with _Signals() as halt:
        report = api.run(job, overwrite=command.flags.overwrite, quiet=command.flags.quiet, halt=halt)
    print(render(report))
    return EXIT_DONE


def _dry_run(job: LoadedJob) -> int:
    print(render_samples(api.dry_run(job)))
    return EXIT_DONE


def _plan(command: Command) -> int:
    job = command.job()
    planned = api.plan(job)
    print(render_plan(planned, job.spec.output_path, api.committed(planned, job.spec.output_path)))
    return EXIT_DONE


def _schema(command: Command) -> int:
    print(json.dumps(json_schema(), indent=2))
    return EXIT_DONE


def _status(command: Command) -> int:
    print(render_status(api.status(command.one_word("an output directory"))))
    return EXIT_DONE


def _verify(command: Command) -> int:
    output = command.one_word("an output directory")
    problems = api.verify(output)
    print("\n".join(problems) if problems else f"{output}: every file and every count is as committed")
    return EXIT_FAILED if problems else EXIT_DONE


def _errors(command: Command) -> int:
    output = command.one_word("an output directory")
    if not command.flags.replay:
        api.open_output(output)
        for row in api.rejected_rows(output):
            print(json.dumps(row, ensure_ascii=False))
        return EXIT_DONE
    with _Signals() as halt:
        report = api.replay(
            output, command.overrides, overwrite=command.flags.overwrite, quiet=command.flags.quiet, halt=halt
        )
    print(render(report))
    return EXIT_DONE


def _convert(command: Command) -> int:
    if len(command.words) != 2:
        raise SpecError([Fault("", "", "convert needs a source and a destination directory")])
    from batchinfer.models.convert import convert

    source, destination = command.words
    convert(source, destination)
    print(f"{destination}: an Orbax checkpoint; name it as model.checkpoint")
    return EXIT_DONE


COMMANDS: dict[str, Callable[[Command], int]] = {
    "run": _run,
    "plan": _plan,
    "schema": _schema,
    "status": _status,
    "verify": _verify,
    "errors": _errors,
    "convert": _convert,
}


class _Signals:
    """SIGINT and SIGTERM ask the run to end (exit 75); a second one ends the process at once."""

    def __enter__(self) -> Halt:
        self.halt = Halt()
        self._before = {number: signal.signal(number, self._on) for number in (signal.SIGINT, signal.SIGTERM)}
        return self.halt

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on(self, number: int, frame: FrameType | None) -> None:
        if self.halt.asked:
            os._exit(EXIT_INTERRUPTED)  # as safe as kill -9, which is safe
        self.halt.ask(InterruptedRun(f"interrupted by {signal.Signals(number).name}"))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SpecError([Fault("--param", "", f'should be x=value, got "{text}"')])
    return name, value


def _date(text: str | None) -> Date | None:
    try:
        return None if text is None else Date.fromisoformat(text)
    except ValueError:
        raise SpecError([Fault("--date", "", f'should be YYYY-MM-DD, got "{text}"')]) from None
