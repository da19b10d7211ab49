"""Bad rows are rejections, with key, place, stage and reason; the job goes on."""

from __future__ import annotations

import json

import orjson
import pytest
from conftest import predictions
from embed_jobs import GOOD, Job, lines, parquet

from batchinfer.cli import main


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
