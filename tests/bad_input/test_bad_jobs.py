"""Faults of the job file, its overlays and its flags, as the command line tells them."""

from __future__ import annotations

import pytest
from embed_jobs import GOOD, Job, lines

from batchinfer.cli import main


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
