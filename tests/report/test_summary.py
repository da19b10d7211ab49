"""The end-of-run summary: exact lines, and the commands in it work."""

from __future__ import annotations

import gzip
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from batchinfer.job import spec
from batchinfer.report.summary import RunReport, look_command, render
from batchinfer.sinks import open_sink

FULL = RunReport(
    name="embed",
    output="out/embed",
    state="done",
    fingerprint="3f2a9c",
    rows_in=20_000,
    predictions=19_990,
    rejections=10,
    rejections_by_reason={"missing_field": 3, "too_long": 7},
    wall_seconds=72.4,
    startup_seconds=6.24,
    rows_per_second=512.3,
    tokens_per_second=13_000.2,
    padding_share=0.123,
    compilations=5,
    compile_seconds=8.1,
    cache_hits=3,
    device_idle_share=0.045,
    peak_memory_bytes=1_288_490_189,
    units=10,
    units_reused=4,
    files=tuple(f"part-{i:05}-of-00010.parquet" for i in range(10)),
    output_bytes=31_457_280,
    devices="1 x NVIDIA H200",
    notes=("buckets 16, 32, 64, 128, 256",),
)

NOTHING = RunReport(
    name="embed",
    output="out/embed",
    state="nothing to do",
    fingerprint="3f2a9c",
    rows_in=5,
    predictions=5,
    rejections=0,
    wall_seconds=0.4,
    units=1,
    units_reused=1,
    files=("part-00000-of-00001.jsonl",),
    output_bytes=900,
)


def test_a_full_report() -> None:
    look = 'import pyarrow.dataset as ds; print(ds.dataset("out/embed", ignore_prefixes=["_", "rejected"]).head(5))'
    assert render(FULL).splitlines() == [
        "embed: done",
        "  rows      20,000 in, 19,990 predicted, 10 rejected (too_long 7, missing_field 3)",
        "  units     10 done, 4 of them by earlier runs",
        "  time      1 min 12 s, 6.2 s of it start-up",
        "  speed     512 rows/s, 13,000 tokens/s",
        "  padding   12.3 % of the tokens",
        "  compiled  5 programs in 8.1 s, 3 from the cache",
        "  devices   1 x NVIDIA H200, idle 4.5 % of the time",
        "  memory    1.2 GiB at the peak",
        "  note      buckets 16, 32, 64, 128, 256",
        "  plan      3f2a9c",
        "  output    out/embed: 10 files, 30 MiB",
        "  rejected  ./launch.sh errors out/embed",
        f"  look      .venv/bin/python -c '{look}'",
    ]


def test_a_run_with_nothing_to_do_says_only_what_is_known() -> None:
    assert render(NOTHING).splitlines() == [
        "embed: nothing to do, everything was done before",
        "  rows    5 in, 5 predicted, 0 rejected",
        "  units   1 done, 1 of them by earlier runs",
        "  time    0.40 s",
        "  plan    3f2a9c",
        "  output  out/embed: 1 file, 900 B",
        "  look    head -n 2 out/embed/part-00000-of-00001.jsonl",
    ]


def test_many_notes_and_reasons_stay_within_twenty_lines() -> None:
    many = replace(
        FULL,
        notes=tuple(f"note {i}" for i in range(50)),
        rejections_by_reason={f"reason_{i}": i + 1 for i in range(9)},
    )
    lines = render(many).splitlines()
    assert len(lines) == 20
    assert lines[1].endswith("(reason_8 9, reason_7 8, reason_6 7, reason_5 6, reason_4 5, other 10)")
    assert lines[15] == "  note      and 44 more notes in the run's record"


def test_an_output_without_files_has_nothing_to_look_at() -> None:
    assert render(replace(NOTHING, files=(), output_bytes=0)).splitlines()[-1] == "  output  out/embed: 0 files, 0 B"


def test_the_report_as_a_dict_is_json_and_complete() -> None:
    assert RunReport(**{**json.loads(json.dumps(FULL.to_dict())), "files": FULL.files, "notes": FULL.notes}) == FULL


@pytest.mark.parametrize(
    "sink",
    [
        spec.ParquetSink(),
        spec.JsonlSink(format="jsonl"),
        spec.JsonlSink(format="jsonl", compression="gzip"),
        spec.JsonlSink(format="jsonl", compression="zstd"),
        spec.TFRecordSink(format="tfrecord"),
        spec.TFRecordSink(format="tfrecord", compression="gzip"),
    ],
    ids=lambda sink: f"{sink.format}-{sink.compression}",
)
def test_the_command_shown_reads_a_whole_output_directory(sink: spec.Sink, tmp_path: Path) -> None:
    output = tmp_path / "it's out" / "embed"
    for name in ("_batchinfer/plan.json", "_MANIFEST.json", "_SUCCESS", "rejected/part-00000-of-00002.jsonl"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text('{"not": "output"}\n')
    table = pa.table({"id": ["row-one", "row-two"], "vector": pa.array([[0.5], [0.25]], pa.list_(pa.float32(), 1))})
    bound = open_sink(sink)
    files = [f"part-0000{i}-of-00002{bound.suffix}" for i in range(2)]
    for name in files:
        with (output / name).open("wb") as stream:
            part = bound.open_part(stream, table.schema)
            part.write(table)
            part.close()
    command = look_command(str(output), files[0], shlex.quote(sys.executable))
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    assert "row-one" in shown and "not" not in shown
    assert ("row-two" in shown) == (sink.format != "tfrecord")


def test_an_empty_first_file_does_not_break_the_command(tmp_path: Path) -> None:
    (tmp_path / "part-00000-of-00001.tfrecord.gz").write_bytes(gzip.compress(b""))
    command = look_command(str(tmp_path), "part-00000-of-00001.tfrecord.gz", shlex.quote(sys.executable))
    assert subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout == "{}\n"
