"""End to end over a model that can be worked out by hand: whichever format the rows come from and go to, the same
predictions, in input order, each row accounted for, and what was written can be read by others."""

from __future__ import annotations

import bz2
import csv
import datetime
import gzip
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastavro
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from conftest import JobMaker, letters, predictions
from pydantic import TypeAdapter

import batchinfer
from batchinfer.errors import SourceError, SpecError
from batchinfer.job import spec
from batchinfer.record import Record
from batchinfer.sinks.tfrecord import TFRecordSink
from batchinfer.sources import cut_inputs, find_inputs, open_source
from batchinfer.storage import storage_for

Rows = list[dict[str, Any]]

N = 60
MARKED = 17
"""The row that the task rejects."""
ROWS: Rows = [{"id": i, "text": f"!{i}" if i == MARKED else letters(i)} for i in range(N)]
SMALL = {"source.unit_bytes": 256}
"""Cuts every format that can be cut into several units."""


def answer(text: str) -> dict[str, Any]:
    return {"total": float(sum(ord(letter) - 96 for letter in text)), "letters": len(text)}


def answers(rows: Rows, key: Callable[[dict[str, Any]], Any], name: str = "id") -> Rows:
    return [{name: key(row), **answer(row["text"])} for row in rows if not row["text"].startswith("!")]


# --- writing input --------------------------------------------------------------------------------------------------


def as_jsonl(rows: Rows) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def as_csv(rows: Rows, delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def as_text(rows: Rows) -> bytes:
    return b"".join(f"{row['text']}\n".encode() for row in rows)


def as_parquet(rows: Rows) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream, row_group_size=20)
    return stream.getvalue()


def as_arrow_file(rows: Rows) -> bytes:
    stream, table = io.BytesIO(), pa.Table.from_pylist(rows)
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return stream.getvalue()


def as_arrow_stream(rows: Rows) -> bytes:
    stream, table = io.BytesIO(), pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def as_avro(rows: Rows) -> bytes:
    stream = io.BytesIO()
    fields = [{"name": "id", "type": "long"}, {"name": "text", "type": "string"}]
    schema = {"type": "record", "name": "row", "fields": fields}
    fastavro.writer(stream, schema, rows, codec="deflate", sync_interval=200)
    return stream.getvalue()


def as_tfrecord(rows: Rows) -> bytes:
    stream, table = io.BytesIO(), pa.Table.from_pylist(rows)
    part = TFRecordSink(spec.TFRecordSink(format="tfrecord")).open_part(stream, table.schema)
    part.write(table)
    part.close()
    return stream.getvalue()


@dataclass(frozen=True)
class Form:
    """A source format: its name in the job, the file's name, rows to bytes, and what its keys are."""

    format: str
    name: str
    encode: Callable[[Rows], bytes]
    key: Callable[[int], Any] = int
    units: bool = True
    """Whether a file of this format can be cut."""


def packed(form: Form, suffix: str, pack: Callable[[bytes], bytes]) -> Form:
    return Form(form.format, form.name + suffix, lambda rows: pack(form.encode(rows)), form.key, units=False)


JSONL = Form("jsonl", "in.jsonl", as_jsonl)
CSV = Form("csv", "in.csv", as_csv, str)
TSV = Form("tsv", "in.tsv", lambda rows: as_csv(rows, "\t"), str)
PARQUET = Form("parquet", "in.parquet", as_parquet)
TFRECORD = Form("tfrecord", "in.tfrecord", as_tfrecord)
FORMS = [
    JSONL,
    packed(JSONL, ".gz", gzip.compress),
    packed(JSONL, ".bz2", bz2.compress),
    packed(JSONL, ".zst", zstandard.compress),
    CSV,
    packed(CSV, ".zst", zstandard.compress),
    TSV,
    packed(TSV, ".bz2", bz2.compress),
    PARQUET,
    Form("arrow", "in.arrow", as_arrow_file),
    Form("arrow", "in.arrows", as_arrow_stream, units=False),
    Form("feather", "in.feather", as_arrow_file),
    Form("avro", "in.avro", as_avro),
    TFRECORD,
    packed(TFRECORD, ".gz", gzip.compress),
]


def ids(form: Form) -> str:
    return form.name.replace("in", form.format, 1)


@pytest.fixture(params=FORMS, ids=ids)
def form(request: pytest.FixtureRequest) -> Form:
    return request.param


@pytest.fixture
def written(form: Form, tmp_path: Path) -> Path:
    path = tmp_path / form.name
    path.write_bytes(form.encode(ROWS))
    return path


# --- sources --------------------------------------------------------------------------------------------------------


def test_every_source_gives_the_same_predictions(letters_job: JobMaker, form: Form, written: Path) -> None:
    report = batchinfer.run(letters_job(written, **{"source.format": form.format, **SMALL}), quiet=True)
    assert predictions(report.output) == answers(ROWS, lambda row: form.key(row["id"]))
    assert (report.rows_in, report.rejections) == (N, 1)
    (rejection,) = batchinfer.api.rejected_rows(report.output)
    assert (rejection["key"], rejection["uri"], rejection["row"]) == (form.key(MARKED), str(written), MARKED)
    assert (report.units > 1) == form.units
    assert batchinfer.verify(report.output) == []


def test_limit_takes_the_first_records_of_every_source(letters_job: JobMaker, form: Form, written: Path) -> None:
    job = letters_job(written, **{"source.format": form.format, "source.limit": 23, **SMALL})
    assert batchinfer.plan(job).rows == 23
    report = batchinfer.run(job, quiet=True)
    assert (report.rows_in, report.rejections) == (23, 1)
    assert predictions(report.output) == answers(ROWS[:23], lambda row: form.key(row["id"]))


def drawn(key: int, share: float) -> bool:
    """Seed 0."""
    digest = hashlib.blake2b(f"0:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def test_sample_takes_the_same_keys_of_every_source(letters_job: JobMaker, form: Form, written: Path) -> None:
    job = letters_job(written, **{"source.format": form.format, "source.sample": 0.4, "source.limit": 15, **SMALL})
    report = batchinfer.run(job, quiet=True)
    assert report.rows_in == 15
    expected = [row for row in ROWS if drawn(row["id"], 0.4)][:15]
    assert predictions(report.output) == answers(expected, lambda row: form.key(row["id"]))
    assert batchinfer.verify(report.output) == []


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".zst"])
def test_text_has_its_place_as_key(letters_job: JobMaker, tmp_path: Path, suffix: str) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}[suffix]
    path = tmp_path / f"in.txt{suffix}"
    path.write_bytes(pack(as_text(ROWS)))
    settings = {"source.format": "text", "source.key": None, **SMALL}
    report = batchinfer.run(letters_job(path, **settings), quiet=True)
    assert predictions(report.output) == answers(ROWS, lambda row: f"{path}:{row['id']}", "key")
    assert batchinfer.verify(report.output) == []
    limited = letters_job(path, **settings, **{"source.limit": 5, "sink.path": str(tmp_path / "limited")})
    assert len(predictions(batchinfer.run(limited, quiet=True).output)) == 5


def test_the_default_key_is_file_and_row(letters_job: JobMaker, tmp_path: Path) -> None:
    report = batchinfer.run(letters_job(ROWS, **{"source.key": None, **SMALL}), quiet=True)
    where = tmp_path / "in.jsonl"
    assert predictions(report.output) == answers(ROWS, lambda row: f"{where}:{row['id']}", "key")


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def scattered(tmp_path: Path) -> Path:
    """ROWS over three files, with a stranger beside them."""
    root = tmp_path / "data"
    for name, part in {"a.jsonl": ROWS[:25], "b/c.jsonl": ROWS[25:40], "b/d/e.jsonl": ROWS[40:]}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(as_jsonl(part))
    (root / "b/_SUCCESS").write_bytes(b"not data")
    return root


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize(
    "path",
    ["ROOT", "ROOT/**/*.jsonl", "ROOT/**", ["ROOT/a.jsonl", "ROOT/b/*.jsonl", "ROOT/b/d"]],
    ids=["directory", "glob", "all", "list"],
)
def test_files_in_many_places(letters_job: JobMaker, scattered: Path, path: str | list[str], scheme: str) -> None:
    root = f"{scheme}{scattered}"
    named = path.replace("ROOT", root) if isinstance(path, str) else [one.replace("ROOT", root) for one in path]
    report = batchinfer.run(letters_job(scattered, **{"source.path": named}), quiet=True)
    assert predictions(report.output) == answers(ROWS, lambda row: row["id"])
    assert batchinfer.verify(report.output) == []
    (rejection,) = batchinfer.api.rejected_rows(report.output)
    assert rejection["uri"] == f"{root}/a.jsonl"


@pytest.mark.parametrize("form", [JSONL, CSV, PARQUET, TFRECORD], ids=ids)
def test_hive_partitions_are_fields(letters_job: JobMaker, tmp_path: Path, form: Form) -> None:
    days = {"2026-11-22": ROWS[:30], "2026-11-23": ROWS[30:]}
    for day, rows in days.items():
        path = tmp_path / f"data/dt={day}/{form.name}"
        path.parent.mkdir(parents=True)
        path.write_bytes(form.encode(rows))
    settings = {"source.format": form.format, "sink.include": ["dt"]}
    report = batchinfer.run(letters_job(tmp_path / "data", **settings), quiet=True)
    rows = predictions(report.output)
    assert [row["dt"] for row in rows] == ["2026-11-22"] * 29 + ["2026-11-23"] * 30
    assert list(rows[0]) == ["id", "dt", "total", "letters"]


def test_an_output_under_a_file_uri(letters_job: JobMaker, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/elsewhere"
    job = letters_job(ROWS, **{"sink.path": uri, **SMALL})
    assert batchinfer.run(job, quiet=True).output == uri
    assert predictions(tmp_path / "elsewhere") == answers(ROWS, lambda row: row["id"])
    assert batchinfer.verify(uri) == []
    assert batchinfer.run(job, quiet=True).state == "nothing to do"
    again = batchinfer.run(letters_job(ROWS[:5], **{"sink.path": uri}), overwrite=True, quiet=True)
    assert [path.name for path in (tmp_path / "elsewhere").glob("part-*")] == list(again.files)


# --- sinks ----------------------------------------------------------------------------------------------------------


def parts(output: str) -> list[Path]:
    return sorted(Path(output).glob("part-*"))


def read_parquet(output: str) -> Rows:
    return [row for part in parts(output) for row in pq.read_table(part).to_pylist()]


def read_jsonl(unpack: Callable[[bytes], bytes]) -> Callable[[str], Rows]:
    def read(output: str) -> Rows:
        return [orjson.loads(line) for part in parts(output) for line in unpack(part.read_bytes()).splitlines()]

    return read


def read_tfrecord(output: str) -> Rows:
    """Through the product's own source, which does not share code with the sink."""
    wanted = TypeAdapter(spec.Source).validate_python({"format": "tfrecord", "path": f"{output}/part-*"})
    storage = storage_for(output)
    source = open_source(wanted, storage)
    found = [row for piece in cut_inputs(find_inputs(wanted, storage), source, 1 << 20) for row in source.read(piece)]
    assert all(isinstance(row, Record) for row in found)
    return [dict(row.fields) for row in found if isinstance(row, Record)]


def unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


SINKS: dict[tuple[str, str], tuple[str, Callable[[str], Rows]]] = {
    ("parquet", "zstd"): (".parquet", read_parquet),
    ("parquet", "snappy"): (".parquet", read_parquet),
    ("parquet", "none"): (".parquet", read_parquet),
    ("jsonl", "none"): (".jsonl", read_jsonl(bytes)),
    ("jsonl", "gzip"): (".jsonl.gz", read_jsonl(gzip.decompress)),
    ("jsonl", "zstd"): (".jsonl.zst", read_jsonl(unzstd)),
    ("tfrecord", "none"): (".tfrecord", read_tfrecord),
    ("tfrecord", "gzip"): (".tfrecord.gz", read_tfrecord),
}


@pytest.fixture(params=SINKS, ids="-".join)
def sink(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


def test_every_sink_holds_the_same_predictions(letters_job: JobMaker, sink: tuple[str, str]) -> None:
    suffix, read = SINKS[sink]
    job = letters_job(ROWS, **{"sink.format": sink[0], "sink.compression": sink[1]}, **SMALL)
    report = batchinfer.run(job, quiet=True)
    assert [part.name for part in parts(report.output)] == [
        f"part-{unit:05d}-of-{report.units:05d}{suffix}" for unit in range(report.units)
    ]
    assert report.units > 3
    assert read(report.output) == answers(ROWS, lambda row: row["id"])
    assert batchinfer.verify(report.output) == []
    assert batchinfer.run(job, quiet=True).state == "nothing to do"


FULL_TYPES = pa.schema(
    {
        "id": pa.string(),
        "text": pa.string(),
        "count": pa.int32(),
        "share": pa.float32(),
        "flag": pa.bool_(),
        "tags": pa.list_(pa.string()),
        "vector": pa.list_(pa.float32()),
        "when": pa.timestamp("us", "UTC"),
        "day": pa.date32(),
    }
)
FULL: Rows = [
    {
        "id": "é1",
        "text": "abc",
        "count": -7,
        "share": 0.25,
        "flag": True,
        "tags": ["x", "y"],
        "vector": [1.5, -2.0],
        "when": datetime.datetime(2026, 11, 22, 10, 30, 0, 125, datetime.UTC),
        "day": datetime.date(2026, 11, 22),
    },
    {"id": "two", "text": "z", **dict.fromkeys(["count", "share", "flag", "tags", "vector", "when", "day"])},
]
PASSED = ["count", "share", "flag", "tags", "vector", "when", "day"]


@pytest.fixture
def full(tmp_path: Path) -> Path:
    path = tmp_path / "full.parquet"
    pq.write_table(pa.Table.from_pylist(FULL, FULL_TYPES), path)
    return path


def test_passed_through_fields_keep_their_types_in_parquet(letters_job: JobMaker, full: Path) -> None:
    settings = {"source.format": "parquet", "sink.format": "parquet", "sink.include": PASSED}
    report = batchinfer.run(letters_job(full, **settings), quiet=True)
    table = pq.read_table(parts(report.output)[0])
    assert table.schema.names == ["id", *PASSED, "total", "letters"]
    assert [table.schema.field(name).type for name in ("id", *PASSED)] == [
        FULL_TYPES.field(name).type for name in ("id", *PASSED)
    ]
    assert [table.schema.field(name).type for name in ("total", "letters")] == [pa.float32(), pa.int32()]
    kept = [{name: row[name] for name in ("id", *PASSED)} | answer(row["text"]) for row in FULL]
    assert table.to_pylist() == kept


def test_passed_through_fields_in_jsonl(letters_job: JobMaker, full: Path) -> None:
    report = batchinfer.run(letters_job(full, **{"source.format": "parquet", "sink.include": PASSED}), quiet=True)
    assert predictions(report.output) == [
        {"id": "é1", "count": -7, "share": 0.25, "flag": True, "tags": ["x", "y"], "vector": [1.5, -2.0],
         "when": "2026-11-22T10:30:00.000125Z", "day": "2026-11-22", "total": 6.0, "letters": 3},
        {"id": "two", **dict.fromkeys(PASSED), "total": 26.0, "letters": 1},
    ]  # fmt: skip


def test_passed_through_fields_in_tfrecord(letters_job: JobMaker, full: Path) -> None:
    settings = {"source.format": "parquet", "sink.format": "tfrecord", "sink.include": PASSED}
    report = batchinfer.run(letters_job(full, **settings), quiet=True)
    assert read_tfrecord(report.output) == [
        {"id": "é1", "count": -7, "share": 0.25, "flag": 1, "tags": ["x", "y"], "vector": [1.5, -2.0],
         "when": "2026-11-22T10:30:00.000125Z", "day": "2026-11-22", "total": 6.0, "letters": 3},
        {"id": "two", "total": 26.0, "letters": 1},
    ]  # fmt: skip


def test_what_a_sink_cannot_hold_is_said_before_work(letters_job: JobMaker, tmp_path: Path) -> None:
    job = letters_job([{"id": 1, "text": "a", "x": 0.1}], **{"sink.format": "tfrecord", "sink.include": ["x"]})
    with pytest.raises(SpecError, match=r"sink.format: column x: a tf.train.Example cannot hold double; leave it out"):
        batchinfer.run(job)
    assert not list((tmp_path / "out").rglob("part-*"))


JSON_VALUES = {
    "int": 7,
    "float": 0.1,
    "string": "é",
    "list": [1, 2],
    "texts": ["a"],
    "object": {"a": 1, "b": [True]},
    "null": None,
    "long": 2**62,
}


@pytest.mark.parametrize("form", [JSONL, packed(JSONL, ".gz", gzip.compress)], ids=ids)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_json_values_pass_through(letters_job: JobMaker, tmp_path: Path, form: Form, kind: str) -> None:
    path = tmp_path / form.name
    path.write_bytes(form.encode([{"id": 1, "text": "a"}, {"id": 2, "text": "b", **JSON_VALUES}]))
    settings = {"sink.include": list(JSON_VALUES), "sink.format": kind}
    report = batchinfer.run(letters_job(path, **settings), quiet=True)
    found = read_parquet(report.output) if kind == "parquet" else predictions(report.output)
    assert found == [
        {"id": 1, **dict.fromkeys(JSON_VALUES), **answer("a")},
        {"id": 2, **JSON_VALUES, **answer("b")},
    ]


def test_a_value_that_does_not_fit_the_type_of_the_first_ones_is_a_rejection(
    letters_job: JobMaker, tmp_path: Path
) -> None:
    odd: dict[int, dict[str, Any]] = {
        1100: {"n": "seven"},
        1101: {"n": 2.5},
        1102: {"tags": "abc"},
        1103: {"at": {"x": 1, "y": 2}},
        1104: {"n": True},
        1105: {"id": "text"},
    }
    rows = [{"id": i, "text": "ab", "n": i, "tags": ["t"], "at": {"x": i}} | odd.get(i, {}) for i in range(1200)]
    settings = {"sink.include": ["n", "tags", "at"], "sink.format": "parquet"}
    report = batchinfer.run(letters_job(rows, **settings), quiet=True)
    assert (report.rows_in, report.rejections_by_reason) == (1200, {"wrong_type": 6})
    rejected = list(batchinfer.api.rejected_rows(report.output))
    assert [(row["row"], row["stage"], row["error"]) for row in rejected] == [
        (number, "finish", "wrong_type") for number in odd
    ]
    assert rejected[0]["message"].startswith('field "n" does not fit its output type int64: Could not convert')
    assert rejected[0]["record"]["n"] == "seven"
    kept = read_parquet(report.output)
    assert [row["n"] for row in kept] == [i for i in range(1200) if i not in odd]
    assert batchinfer.verify(report.output) == []


def test_a_field_that_no_file_has_is_not_simply_null(letters_job: JobMaker, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(as_csv(ROWS))
    with pytest.raises(SourceError, match='has no column "txt", which sink.include names .did you mean text'):
        batchinfer.plan(letters_job(tmp_path / "in.csv", **{"source.format": "csv", "sink.include": ["txt"]}))


def test_every_format_of_the_job_file_is_tested_here() -> None:
    sections = spec.JobSpec.model_json_schema()["properties"]
    assert set(sections["source"]["discriminator"]["mapping"]) == {form.format for form in FORMS} | {"text"}
    assert set(sections["sink"]["discriminator"]["mapping"]) == {form for form, _ in SINKS}
