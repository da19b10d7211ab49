"""Bad input, through the real command line: one clear line and an exit code, or one rejection and the job goes on.

What can be known before any work ends the plan: there the runner (and with it jax) must not even be imported.
The model is a tiny BERT with 24 numbers a vector, 40 tokens a text at most, and a token for every letter.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, predictions, tree
from faults import FaultyStorage, Operations
from safetensors.numpy import load_file, save_file

from batchinfer.cli import main
from batchinfer.errors import OutOfSpaceError, StorageError
from batchinfer.storage import Storage, wrapped

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


@pytest.fixture
def job(tmp_path: Path, capsys: Any, caplog: Any, compile_cache: str) -> Job:
    return Job(tmp_path, capsys, caplog, compile_cache)


@pytest.fixture
def before_work(job: Job, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job that must end before the runner is imported, without having written anything."""
    monkeypatch.setitem(sys.modules, "batchinfer.runners.launch", None)
    return job


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows)


def parquet(**columns: list[Any]) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


WHOLE = parquet(id=[1, 2], text=["a", "b"])
GZIPPED = gzip.compress(lines(GOOD))

# --- files ----------------------------------------------------------------------------------------------------------

BROKEN_FILES: dict[str, tuple[str, str, bytes, str]] = {
    "empty": ("jsonl", "in.jsonl", b"", "no records: the only file is empty"),
    "blank lines only": ("jsonl", "in.jsonl", b"\n\n", "no records: the only file is empty"),
    "truncated gz": (
        "jsonl",
        "in.jsonl.gz",
        GZIPPED[:-6],
        "the gzip data break off or are corrupt (Truncated compressed stream); copy the file again",
    ),
    "not gz at all": ("jsonl", "in.jsonl.gz", lines(GOOD), "the gzip data break off or are corrupt"),
    "no parquet footer": (
        "parquet",
        "in.parquet",
        WHOLE[: len(WHOLE) // 2],
        "not a readable Parquet file (Parquet magic bytes not found in footer.",
    ),
    "corrupt parquet footer": (
        "parquet",
        "in.parquet",
        WHOLE[:-60] + b"\xff" * 52 + WHOLE[-8:],
        "not a readable Parquet file (Couldn't deserialize thrift",
    ),
    "parquet without the text column": (
        "parquet",
        "in.parquet",
        parquet(id=[1], txt=["a"]),
        'has no column "text", which the job reads (did you mean "txt"?); it has "id", "txt"',
    ),
    "csv without the key column": (
        "csv",
        "in.csv",
        b"no,text\n1,a\n",
        'has no column "id", which source.key names; it has "no", "text"',
    ),
    "csv without a header": (
        "csv",
        "in.csv",
        b"id,,text\n1,2,a\n",
        "column 2 of the header line has no name; mend it, or name the columns in source.header",
    ),
    "arrow cut off": ("arrow", "in.arrow", b"ARROW1\0\0abc", "not a readable Arrow file"),
    "not avro": ("avro", "in.avro", b"Obj\x02", "not a readable Avro file"),
    "not tfrecord": ("tfrecord", "in.tfrecord", lines(GOOD), "no TFRecord at byte 0 (length checksum); it is corrupt"),
}


@pytest.mark.parametrize("fault", BROKEN_FILES)
def test_a_file_that_cannot_be_read_ends_the_plan(before_work: Job, fault: str) -> None:
    form, name, data, words = BROKEN_FILES[fault]
    path = before_work.write(form, data, name)
    code, err = before_work.run()
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"{path}: {words}")
    assert not before_work.output.exists()


def test_a_missing_file_is_named_with_a_near_one(before_work: Job) -> None:
    before_work.path("sentences.jsonl").write_bytes(lines(GOOD))
    wrong = str(before_work.path("sentense.jsonl"))
    assert before_work.run(f"--config.source.path={wrong}") == (
        2,
        f'{wrong}: no such file, nor a directory with data files in it (did you mean "sentences.jsonl"?)\n',
    )


@pytest.mark.parametrize("pattern", ["*.jsonl", "**/*.jsonl", "[ab].txt"])
def test_an_empty_glob(before_work: Job, pattern: str) -> None:
    where = f"{before_work.directory}/{pattern}"
    assert before_work.run(f"--config.source.path={where}") == (2, f"{where}: no file matches; check source.path\n")


def test_an_empty_directory(before_work: Job) -> None:
    before_work.path("data").mkdir()
    code, err = before_work.run(f"--config.source.path={before_work.path('data')}")
    assert (code, err) == (2, f"{before_work.path('data')}: no such file, nor a directory with data files in it\n")


def test_a_file_nobody_may_read(before_work: Job) -> None:
    path = before_work.write("jsonl", lines(GOOD))
    with wrapped(lambda storage: Forbidding(storage, path)):
        assert before_work.run() == (2, f"{path}: permission denied\n")


class Forbidding(FaultyStorage):
    def __init__(self, storage: Storage, path: str):
        super().__init__(storage, Operations())
        self._path = path

    def open_read(self, uri: str, version: str | None = None) -> BinaryIO:
        if uri == self._path:
            raise StorageError(uri, "permission denied")
        return super().open_read(uri, version)


def test_a_file_that_breaks_off_later_fails_its_unit_and_the_others_are_kept(job: Job) -> None:
    """Where only reading to its end can tell: exit 1, the unit named, what is good committed."""
    rows = lines(*({"id": i, "text": f"text {i * i}"} for i in range(3000)))
    whole, cut = gzip.compress(rows), gzip.compress(rows)[:-2000]
    job.path("in").mkdir()
    job.path("in/a.jsonl.gz").write_bytes(whole)
    job.path("in/b.jsonl.gz").write_bytes(cut)
    code, err = job.run(f"--config.source.path={job.path('in')}")
    assert code == 1
    assert "1 of 2 units failed, the others are committed" in err
    assert f"unit 1: {job.path('in/b.jsonl.gz')}: the gzip data break off or are corrupt" in err
    assert err.rstrip().endswith("Mend the cause and run the same command to go on")
    assert [part.name for part in job.output.glob("part-*")] == ["part-00000-of-00002.jsonl"]
    assert not (job.output / "_SUCCESS").exists()


# --- rows -----------------------------------------------------------------------------------------------------------


def test_bad_rows_are_rejections_and_the_job_goes_on(job: Job) -> None:
    path = job.write(
        "jsonl",
        lines(
            GOOD,
            b'{"id": 1, "text": ',
            {"id": 2},
            {"id": 3, "text": None},
            {"id": 4, "text": 7},
            {"id": 5, "text": ["a"]},
            b'{"id": 6, "text": "\xff"}',
            b'{"id": 7, "text": "a\x00b"}',
            b'{"id": 8, "text": "\\ud800"}',
            b"[1, 2]",
            {"text": "no key"},
            {"id": None, "text": "no key"},
            {"id": 1.5, "text": "no key"},
            b'{"id": 13, "text": ' + b"[" * 1000 + b"]" * 1000 + b"}",
            {"id": 14, "text": "the last one"},
        ),
    )
    assert job.run() == (0, "")
    assert job.keys() == [0, 14]
    assert job.reasons() == [
        (None, 1, "read", "bad_json"),
        (2, 2, "prepare", "missing_field"),
        (3, 3, "prepare", "null_field"),
        (4, 4, "prepare", "not_text"),
        (5, 5, "prepare", "not_text"),
        (None, 6, "read", "bad_utf8"),
        (None, 7, "read", "bad_json"),
        (None, 8, "read", "bad_json"),
        (None, 9, "read", "not_an_object"),
        (None, 10, "read", "missing_key"),
        (None, 11, "read", "null_key"),
        (None, 12, "read", "bad_key"),
        (13, 13, "prepare", "not_text"),
    ]
    rejected = job.rejected()
    assert {row["uri"] for row in rejected} == {path}
    messages = {row["row"]: row["message"] for row in rejected}
    assert messages[1] == "unexpected end of data: line 1 column 19 (char 18); mend or remove the line"
    assert messages[2] == 'there is no field "text" in this record'
    assert messages[3] == 'field "text" is null, text is due'
    assert messages[4] == 'field "text" holds int, text is due'
    assert messages[6] == "not UTF-8 at byte 19 of the line (invalid start byte); convert the file to UTF-8"
    assert messages[7].startswith("unexpected control character in string")
    assert messages[9] == "a JSON list, but a record must be an object {...}"
    assert messages[10] == 'no field "id" (source.key); the row has "text"'
    assert messages[12] == 'field "id" (source.key) is a float; a key is a text or a whole number'
    assert rejected[0]["record"] == '{"id": 1, "text": '
    assert rejected[3]["record"] == {"id": 4, "text": 7}
    assert "[cut: nested more than 64 deep]" in json.dumps(rejected[-1]["record"])


def test_a_job_of_bad_rows_only_ends_well(job: Job) -> None:
    job.write("jsonl", lines({"id": 1}, {"id": 2}))
    assert job.run() == (0, "")
    assert (job.keys(), len(job.rejected())) == ([], 2)
    assert main([str(job.file()), "--dry_run", f"--config.sink.path={job.path('other')}"]) == 0


def test_bad_rows_beyond_the_budget_are_exit_3(job: Job) -> None:
    job.write("jsonl", lines(GOOD, {"id": 1}))
    code, err = job.run("--config.errors.max_rate=0.1")
    assert code == 3
    assert err == (
        "1 of 2 records rejected (50.0%: missing_field 1); errors.max_rate allows 10.0%. "
        f"See them with ./launch.sh errors {job.output}, or raise errors.max_rate and run again to go on\n"
    )


def test_a_nul_is_read_as_the_models_own_tokenizer_reads_it(job: Job) -> None:
    job.write("jsonl", lines({"id": "a", "text": "a\0b"}, {"id": "b", "text": "ab"}, {"id": "\0", "text": ""}))
    assert job.run() == (0, "")
    with_nul, without, _ = predictions(job.output)
    assert with_nul["embedding"] == without["embedding"]
    assert job.keys() == ["a", "b", "\0"]


def test_bad_rows_of_csv(job: Job) -> None:
    data = b'id,text\n1,a\n2\n3,b,c\n4,\xff\n5,a\0b\n6,\n7,"open\n8,swallowed\n'
    job.write("csv", data)
    assert job.run() == (0, "")
    assert job.keys() == ["1", "5", "6"]
    rejected = job.rejected()
    assert [(row["row"], row["error"], row["record"]) for row in rejected] == [
        (1, "ragged_row", ["2"]),
        (2, "ragged_row", ["3", "b", "c"]),
        (3, "bad_utf8", ["4", "\ufffd"]),
        (6, "unclosed_quote", ["7", "open\n8,swallowed\n"]),
    ]
    assert rejected[1]["message"] == (
        "3 fields where the header names 2; quote fields that hold the delimiter or a line end"
    )
    assert rejected[3]["message"].endswith("is never closed, so it takes in the rest of the file; close it")


def test_bad_rows_of_parquet(job: Job) -> None:
    job.write("parquet", parquet(id=["a", None, "c"], text=["x", "y", None]))
    assert job.run() == (0, "")
    assert job.keys() == ["a"]
    assert job.reasons() == [(None, 1, "read", "null_key"), ("c", 2, "prepare", "null_field")]


def test_a_column_of_numbers_where_text_is_due(job: Job) -> None:
    job.write("parquet", parquet(id=[1, 2], text=[1, None]))
    assert job.run() == (0, "")
    assert job.reasons() == [(1, 0, "prepare", "not_text"), (2, 1, "prepare", "null_field")]


def test_bad_rows_of_text_files(job: Job) -> None:
    job.write("text", b"good\n\xff\na\0b\n")
    assert job.run("--config.source.key=null") == (0, "")
    path = job.settings["PATH"]
    assert [row["key"] for row in predictions(job.output)] == [f"{path}:0", f"{path}:2"]
    assert job.reasons() == [(f"{path}:1", 1, "read", "bad_utf8")]


# --- long -----------------------------------------------------------------------------------------------------------

FIVE_MB = "a b " * 1_250_000
LONG = " ".join(["a"] * 99_999)
"""With the two special tokens 100,001 tokens."""


@pytest.mark.parametrize(("text", "chars"), [(FIVE_MB, "5,000,000"), (LONG, "199,997")], ids=["5 MB", "100,001 tokens"])
def test_a_long_text_is_a_rejection_that_says_how_to_have_it_cut(job: Job, text: str, chars: str) -> None:
    job.write("jsonl", lines(GOOD, {"id": 1, "text": text}, {"id": 2, "text": "b"}))
    assert job.run() == (0, "")
    assert job.keys() == [0, 2]
    (row,) = job.rejected()
    assert (row["key"], row["row"], row["stage"], row["error"]) == (1, 1, "prepare", "too_long")
    assert row["message"] == (
        f"{chars} characters are more than 40 tokens (task.max_length); task.truncate: true cuts such texts"
    )
    assert row["record"]["text"].endswith(f"[cut: {len(text)} characters]")
    assert len(row["record"]["text"]) < 11_000


def test_long_texts_are_cut_when_the_job_says_so(job: Job) -> None:
    rows = [LONG, FIVE_MB, " ".join(["a"] * 38), "a b " * 19]
    job.write("jsonl", lines(*({"id": i, "text": text} for i, text in enumerate(rows))))
    assert job.run("--config.task.truncate=true") == (0, "")
    long, big, long_head, big_head = (row["embedding"] for row in predictions(job.output))
    assert (long, big) == (long_head, big_head)


def test_a_line_longer_than_allowed(job: Job) -> None:
    path = job.write("jsonl", lines(GOOD, {"id": 1, "text": FIVE_MB}, {"id": 2, "text": "b"}))
    assert job.run("--config.source.max_line_bytes=1000000") == (0, "")
    assert job.keys() == [0, 2]
    (row,) = job.rejected()
    assert (row["uri"], row["row"], row["stage"], row["error"]) == (path, 1, "read", "line_too_long")
    assert row["message"] == ("5000018 bytes, more than source.max_line_bytes (1000000); raise it or split the line")


def test_duplicate_keys_are_kept_and_reported(job: Job) -> None:
    job.write("jsonl", lines(GOOD, {"id": 1, "text": "b"}, GOOD, GOOD))
    assert job.run() == (0, "")
    assert job.keys() == [0, 1, 0, 0]
    assert orjson.loads((job.output / "_MANIFEST.json").read_bytes())["duplicate_keys"] == 2
    assert "2 records have a key that another of their unit has; all were kept" in job.said.out


# --- checkpoints ----------------------------------------------------------------------------------------------------

Break = Callable[[Path], None]


def remove(name: str) -> Break:
    return lambda checkpoint: (checkpoint / name).unlink()


def put(name: str, data: str) -> Break:
    return lambda checkpoint: (checkpoint / name).write_text(data) and None


def configure(**values: Any) -> Break:
    def change(checkpoint: Path) -> None:
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps(config | values))

    return change


def halve(checkpoint: Path) -> None:
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def lose_a_tensor(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["extra.thing"] = tensors.pop("embeddings.token_type_embeddings.weight")
    save_file(tensors, checkpoint / "model.safetensors")


INCOMPLETE: dict[str, tuple[Break, str]] = {
    "missing": (shutil.rmtree, ": does not exist\n"),
    "no tokenizer": (
        remove("tokenizer.json"),
        ": tokenizer.json is missing; save it with transformers' AutoTokenizer (use_fast=True)\n",
    ),
    "no config": (
        remove("config.json"),
        ": config.json is missing; it says what the model is (or name your own with model.module)\n",
    ),
    "no weights": (
        remove("model.safetensors"),
        ": no weights: expected model.safetensors, model.safetensors.index.json with its shards, "
        "or an Orbax checkpoint\n",
    ),
    "pickled weights": (
        lambda checkpoint: (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin") and None,
        ": only pytorch_model.bin is here; pickled and foreign weights are never loaded: convert once to "
        "safetensors with transformers' save_pretrained\n",
    ),
}
UNFIT: dict[str, tuple[Break, str]] = {
    "broken tokenizer": (put("tokenizer.json", "{"), "/tokenizer.json: cannot be read as a tokenizer: EOF while"),
    "broken config": (put("config.json", "{"), "/config.json: is not JSON: "),
    "weights cut off": (halve, ": model.safetensors is not a whole safetensors file ("),
    "another architecture": (
        configure(model_type="llama"),
        ": the model is llama; supported are bert, roberta, xlm-roberta, camembert, distilbert, or your own",
    ),
}


@pytest.fixture
def checkpoint(job: Job) -> Path:
    """A copy of the checkpoint, which the job names."""
    path = job.path("checkpoint")
    shutil.copytree(CHECKPOINT, path)
    job.settings["CHECKPOINT"] = str(path)
    job.write("jsonl", lines(GOOD))
    return path


@pytest.mark.parametrize("fault", INCOMPLETE)
def test_an_incomplete_checkpoint_ends_the_plan(before_work: Job, checkpoint: Path, fault: str) -> None:
    damage, words = INCOMPLETE[fault]
    damage(checkpoint)
    assert before_work.run() == (2, f"{checkpoint}{words}")
    assert not before_work.output.exists()


@pytest.mark.parametrize("fault", UNFIT)
def test_a_checkpoint_that_cannot_be_used_is_one_line(job: Job, checkpoint: Path, fault: str) -> None:
    damage, words = UNFIT[fault]
    damage(checkpoint)
    code, err = job.run()
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"{checkpoint}{words}")
    assert not list(job.output.rglob("*.json"))


def test_a_partial_checkpoint_names_every_tensor(job: Job, checkpoint: Path) -> None:
    lose_a_tensor(checkpoint)
    configure(intermediate_size=44)(checkpoint)
    code, err = job.run()
    assert code == 2
    assert set(err.splitlines()) == {
        f"{checkpoint}: {problem}"
        for problem in (
            "missing embeddings.token_type_embeddings.weight (float32[2, 24])",
            "extra extra.thing (float32[2, 24]): the model has no such parameter",
            *(
                f"shape of encoder.layer.{layer}.{name} is {stored}, the model's is {wanted}"
                for layer in (0, 1)
                for name, stored, wanted in (
                    ("intermediate.dense.weight", [40, 24], [44, 24]),
                    ("intermediate.dense.bias", [40], [44]),
                    ("output.dense.weight", [24, 40], [24, 44]),
                )
            ),
        )
    }


def test_a_package_that_is_not_installed(before_work: Job) -> None:
    before_work.write("jsonl", lines(GOOD))
    before_work.settings["CHECKPOINT"] = "package://no_such_package/model"
    assert before_work.run() == (
        2,
        "package://no_such_package/model: package no_such_package is not installed in this environment\n",
    )


def test_a_longer_text_than_the_model_reads_is_not_promised(job: Job) -> None:
    job.write("jsonl", lines(GOOD))
    assert job.run("--config.task.max_length=41") == (
        2,
        "task.max_length: is 41, but the model reads at most 40 tokens\n",
    )
    assert job.run("--config.task.max_length=2")[1] == "task.max_length: is 2, but a text needs 3 tokens at least\n"


# --- outputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "/out"])
def test_an_output_that_cannot_be_written_is_known_before_work(before_work: Job, below: str) -> None:
    before_work.write("jsonl", lines(GOOD))
    before_work.path("file").write_text("in the way")
    wanted = f"{before_work.path('file')}{below}"
    assert before_work.run(f"--config.sink.path={wanted}") == (
        2,
        f"sink.path: {wanted}: cannot be written to (part of its path is a file, not a directory); "
        "give a directory that can be\n",
    )


def test_an_output_nobody_may_write_to_is_known_before_work(before_work: Job) -> None:
    before_work.write("jsonl", lines(GOOD))
    with wrapped(ReadOnly):
        assert before_work.run() == (
            2,
            f"sink.path: {before_work.output}: cannot be written to (permission denied); "
            "give a directory that can be\n",
        )


class ReadOnly(FaultyStorage):
    def __init__(self, storage: Storage):
        super().__init__(storage, Operations())

    def write(self, uri: str, data: bytes) -> None:
        raise StorageError(uri, "permission denied")


@pytest.mark.parametrize("what", ["source", "sink"])
def test_a_scheme_nobody_serves(before_work: Job, what: str) -> None:
    before_work.write("jsonl", lines(GOOD))
    code, err = before_work.run(f"--config.{what}.path=ftp://host/x")
    assert (code, err) == (2, 'ftp://host/x: scheme "ftp" is not served; give a local path or a file:// uri\n')


class Disk:
    """Room for so many bytes, shared by all storages on it."""

    def __init__(self, room: int):
        self._room = room

    def take(self, uri: str, size: int) -> None:
        if size > self._room:
            self._room = 0
            raise OutOfSpaceError(uri, "no space left on the device; free some and run again to resume")
        self._room -= size


class OnDisk(FaultyStorage):
    """A storage on a small disk."""

    def __init__(self, storage: Storage, disk: Disk):
        super().__init__(storage, Operations())
        self._disk = disk

    def open_write(self, uri: str) -> BinaryIO:
        return StreamOnDisk(super().open_write(uri), uri, self._disk)  # type: ignore[return-value]

    def write(self, uri: str, data: bytes) -> None:
        self._disk.take(uri, len(data))
        super().write(uri, data)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        self._disk.take(uri, len(data))
        return super().put_if_absent(uri, data)


class StreamOnDisk(io.RawIOBase):
    def __init__(self, stream: BinaryIO, uri: str, disk: Disk):
        self._stream, self._uri, self._disk = stream, uri, disk

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._disk.take(self._uri, memoryview(data).nbytes)
        return self._stream.write(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


@pytest.mark.parametrize(("room", "where"), [(100, "_batchinfer/plan.json"), (50_000, "_batchinfer/staging/")])
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(job: Job, room: int, where: str) -> None:
    job.write("jsonl", lines(*({"id": i, "text": f"a cat {i}"} for i in range(300))))
    cut = "--config.source.unit_bytes=2000"
    assert job.run(cut, f"--config.sink.path={job.path('golden')}") == (0, "")
    disk = Disk(room)
    with wrapped(lambda storage: OnDisk(storage, disk)):
        code, err = job.run(cut)
    assert code == 1
    assert err.startswith(f"{job.output}/{where}")
    assert err.endswith(": no space left on the device; free some and run again to resume\n")
    assert err.count("\n") == 1
    committed = len(list(job.output.glob("_batchinfer/commits/*.json")))
    assert 0 <= committed < 5
    assert job.run(cut) == (0, "")
    assert len(job.keys()) == 300
    golden = tree(job.path("golden"))
    assert {path: data for path, data in tree(job.output).items() if golden[path] != data}.keys() <= {
        "_batchinfer/plan.json"  # it names its own output
    }


def test_another_jobs_output_is_refused_with_what_changed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.write("jsonl", lines(GOOD))
    assert job.run() == (0, "")
    kept = tree(job.output)
    monkeypatch.setitem(sys.modules, "batchinfer.runners.launch", None)
    assert job.run("--config.task.normalize=false") == (
        2,
        f"{job.output}: holds the output of another plan; changed: task.normalize: True -> False. "
        "Give another --config.sink.path, or --overwrite to start anew\n",
    )
    assert tree(job.output) == kept


def test_part_files_of_no_plan_are_not_mixed_in(job: Job) -> None:
    job.write("jsonl", lines(GOOD))
    job.output.mkdir()
    (job.output / "part-00007-of-00009.jsonl").write_text("{}\n")
    assert job.run() == (
        2,
        f"{job.output}: already holds part-00007-of-00009.jsonl, which no plan accounts for. "
        "Give another --config.sink.path, or --overwrite to remove it\n",
    )


@pytest.mark.parametrize("plan", [b"", b"{}", b"[1]", b"\xff"])
def test_a_plan_that_cannot_be_read(before_work: Job, plan: bytes) -> None:
    before_work.write("jsonl", lines(GOOD))
    (before_work.output / "_batchinfer").mkdir(parents=True)
    (before_work.output / "_batchinfer/plan.json").write_bytes(plan)
    code, err = before_work.run()
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"{before_work.output}/_batchinfer/plan.json: is not a plan this version can read (")
    assert err.endswith("Give another --config.sink.path, or --overwrite to start anew\n")


def test_a_passed_through_field_that_the_output_has_already(job: Job) -> None:
    job.write("jsonl", lines({**GOOD, "embedding": "mine"}))
    code, err = job.run("--config.sink.include=[embedding]")
    assert (code, err) == (
        2,
        "sink.format: column embedding: stands 2 times in the output; "
        "leave it out of sink.include, or rename it in the input\n",
    )


# --- jobs and flags -------------------------------------------------------------------------------------------------


def test_faults_of_the_job_file_name_line_and_column(before_work: Job) -> None:
    before_work.write("jsonl", lines(GOOD))
    job_file = before_work.file()
    text = job_file.read_text().replace("max_tokens: 320", 'max_rows: "many", window_rows: -8, rows: 3')
    job_file.write_text(text.replace("retries: 0", "retries: -1"))
    assert main([str(job_file)]) == 2
    assert before_work.capsys.readouterr().err.splitlines() == [
        f'{job_file}:5:40: batching.max_rows: should be a positive whole number or null, got "many"',
        f"{job_file}:5:61: batching.window_rows: should be a positive whole number, got -8",
        f"{job_file}:5:65: batching.rows: unknown key (did you mean max_rows?)",
        f"{job_file}:7:34: errors.retries: should be a whole number, at least 0 and at most 100, got -1",
    ]


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        (
            "--config.batching.max_rows=many",
            '--config.batching.max_rows: should be a positive whole number or null, got "many"',
        ),
        (
            "--config.batching.max_tokens=-1",
            "--config.batching.max_tokens: should be a positive whole number, got -1",
        ),
        (
            "--config.source.unit_bytes=0",
            "--config.source.unit_bytes: should be a positive whole number or null, got 0",
        ),
        ("--config.batching.rows=3", "--config.batching.rows: unknown key (did you mean max_rows?)"),
        ("--limit=-3", "flag --limit=-3: -3 is not a positive integer; ./launch.sh --help lists the flags"),
    ],
)
def test_faults_of_flags_name_the_flag(before_work: Job, flag: str, line: str) -> None:
    before_work.write("jsonl", lines(GOOD))
    assert before_work.run(flag) == (2, f"{line}\n")


def test_a_circle_of_overlays(before_work: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    before_work.write("jsonl", lines(GOOD))
    monkeypatch.chdir(before_work.directory)
    for name, base in (("a", "b"), ("b", "a")):
        before_work.path(f"{name}.py").write_text(f"def get_config():\n    return {{'base': ['{base}.py']}}\n")
    assert before_work.run("--config=a.py") == (
        2,
        "a.py: base: overlays include each other in a circle: a.py -> b.py -> a.py\n",
    )
