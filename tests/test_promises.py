"""The promises P1 to P8, each by its name. The kill tests behind P2 stand in test_kill.py."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest
from conftest import letters, predictions, tree, write_jsonl

import batchinfer
from batchinfer.commit import Commit
from batchinfer.errors import ConflictError, ErrorBudgetError, UnitsFailedError, VerifyError
from batchinfer.ledger import Ledger
from batchinfer.storage import storage_for

ROWS = [
    {"id": 0, "text": "abc"},
    {"id": 1, "text": ""},
    {"id": 2, "text": "!no"},
    {"id": 3},
    {"id": 4, "text": "z"},
]


def test_fake_model_as_its_docstring_says(letters_job):
    report = batchinfer.run(letters_job([{"id": 0, "text": "abc"}], **{"model.kwargs.weight": 2.0}))
    assert predictions(report.output) == [{"id": 0, "total": 12.0, "letters": 3}]


def test_p1_accounted(letters_job, tmp_path):
    path = write_jsonl(tmp_path / "in.jsonl", ROWS)
    with path.open("ab") as stream:
        stream.write(b"not json\n\n{}\n")
    report = batchinfer.run(letters_job(path))
    manifest = orjson.loads((tmp_path / "out/_MANIFEST.json").read_bytes())
    assert (report.rows_in, report.predictions, report.rejections) == (7, 2, 5)
    assert manifest["rows_in"] == manifest["predictions"] + manifest["rejections"] == 7
    assert manifest["rejections_by_reason"] == {"KeyError": 1, "bad_json": 1, "empty": 1, "marked": 1, "missing_key": 1}
    assert sum(file["rows"] for file in manifest["files"]) == 7


def test_p1_a_commit_that_does_not_add_up_is_refused(letters_job, tmp_path):
    job = letters_job(3)
    ledger = Ledger(str(tmp_path / "out"), storage_for("x"), batchinfer.plan(job))
    ledger.claim()
    with pytest.raises(VerifyError, match="3 rows in, but 1 predictions and 1 rejections; nothing was committed"):
        ledger.attempt(0).commit(Commit(0, ledger.fingerprint, (), rows_in=3, predictions=1, rejections=1))
    assert ledger.commits() == {}


def test_p2_a_rerun_recomputes_nothing(letters_job, tmp_path):
    job = letters_job(600, **{"source.unit_bytes": 4096})
    first = batchinfer.run(job)
    before = tree(first.output)
    again = batchinfer.run(job)
    assert (again.state, again.units_reused) == ("nothing to do", first.units)
    assert first.units > 3
    assert tree(first.output) == before


@pytest.mark.parametrize(
    "setting",
    [
        {"run.units_in_flight": 1},
        {"run.units_in_flight": 8},
        {"errors.retries": 0},
        {"run.beam_options.direct_runner_bundle_repeat": 2},
    ],
    ids=str,
)
def test_p3_same_bytes_however_it_is_run(letters_job, tmp_path, setting):
    common = {"source.unit_bytes": 4096}
    golden = tree(batchinfer.run(letters_job(500, **common, **{"sink.path": str(tmp_path / "golden")})).output)
    other = tree(batchinfer.run(letters_job(tmp_path / "in.jsonl", **common, **setting)).output)
    assert without_plan(other) == without_plan(golden)


def without_plan(files: dict[str, bytes]) -> dict[str, bytes]:
    """The plan holds the job as it was asked for, output path and runner included; its fingerprint does not."""
    return {path: data for path, data in files.items() if path != "_batchinfer/plan.json"}


def test_p3_a_row_has_one_answer_whatever_its_unit_and_neighbours(letters_job, tmp_path):
    whole = batchinfer.run(letters_job(500, **{"sink.path": str(tmp_path / "one")}))
    cut = batchinfer.run(letters_job(500, **{"sink.path": str(tmp_path / "many"), "source.unit_bytes": 2048}))
    turned = write_jsonl(tmp_path / "turned.jsonl", [{"id": i, "text": letters(i)} for i in reversed(range(500))])
    back = batchinfer.run(letters_job(turned, **{"sink.path": str(tmp_path / "turned")}))
    assert predictions(cut.output) == predictions(whole.output)
    assert sorted(predictions(back.output), key=lambda row: row["id"]) == predictions(whole.output)
    assert cut.units > whole.units


def test_p4_nothing_half_done_is_visible(letters_job, tmp_path, monkeypatch):
    """While units fail, readers see committed parts only, and no _SUCCESS."""
    job = letters_job(600, **{"source.unit_bytes": 4096})
    monkeypatch.setattr("batchinfer.runners.pool.run_unit", _failing_unit(2))
    with pytest.raises(UnitsFailedError, match=r"1 of \d+ units failed, .* unit 2: RuntimeError: broken on purpose"):
        batchinfer.run(job, quiet=True)
    output = tmp_path / "out"
    assert not (output / "_SUCCESS").exists()
    assert not (output / "_MANIFEST.json").exists()
    visible = {path.name for path in output.glob("part-*")}
    committed = {
        Path(file["path"]).name
        for record in (output / "_batchinfer/commits").glob("*.json")
        for file in orjson.loads(record.read_bytes())["files"]
    }
    assert visible == committed
    assert not any(name.startswith("part-00002") for name in visible)


def _failing_unit(number):
    from batchinfer.unit import run_unit

    def run(unit, work):
        if unit.id == number:
            raise RuntimeError("broken on purpose")
        return run_unit(unit, work)

    return run


def test_p4_the_failed_unit_alone_is_done_by_the_next_run(letters_job, tmp_path, monkeypatch):
    job = letters_job(600, **{"source.unit_bytes": 4096})
    with monkeypatch.context() as patch:
        patch.setattr("batchinfer.runners.pool.run_unit", _failing_unit(2))
        with pytest.raises(UnitsFailedError, match="the others are committed"):
            batchinfer.run(job, quiet=True)
    report = batchinfer.run(job)
    assert report.units - report.units_reused == 1
    assert batchinfer.verify(report.output) == []


def test_p5_no_mixing_names_what_changed(letters_job):
    batchinfer.run(letters_job(50))
    with pytest.raises(
        ConflictError, match=r"holds the output of another plan; changed: batching.max_tokens: 256 -> 128"
    ):
        batchinfer.run(letters_job(50, **{"batching.max_tokens": 128}))
    with pytest.raises(ConflictError, match=r"model.kwargs.weight: none -> 3.0"):
        batchinfer.run(letters_job(50, **{"model.kwargs.weight": 3.0}))
    with pytest.raises(ConflictError, match=r"changed: inputs\..*in\.jsonl"):
        batchinfer.run(letters_job(51))


def test_p5_overwrite_is_explicit_and_leaves_nothing_old(letters_job, tmp_path):
    batchinfer.run(letters_job(600, **{"source.unit_bytes": 4096}))
    report = batchinfer.run(letters_job(20), overwrite=True)
    assert sorted(p.name for p in (tmp_path / "out").glob("part-*")) == ["part-00000-of-00001.jsonl"]
    assert batchinfer.verify(report.output) == []


def test_p5_two_runs_of_one_job_at_once_do_no_harm(letters_job, tmp_path):
    golden = tree(batchinfer.run(letters_job(800, **{"source.unit_bytes": 4096})).output)
    for turn in range(3):
        output = tmp_path / f"twice{turn}"
        job = letters_job(tmp_path / "in.jsonl", **{"source.unit_bytes": 4096, "sink.path": str(output)})
        with ThreadPoolExecutor(2) as threads:
            reports = [threads.submit(batchinfer.run, job, quiet=True) for _ in range(2)]
        assert [report.result().rows_in for report in reports] == [800, 800]
        assert without_plan(tree(output)) == without_plan(golden)


def test_p6_queues_are_bounded(letters_job):
    """A window that nobody takes stops the reader: at most `depth` + 1 items are made ahead."""
    from batchinfer.ahead import ahead

    made = []

    def items():
        for i in range(1000):
            made.append(i)
            yield i

    with ahead(items(), depth=2) as ready:
        first = next(ready)
        threading.Event().wait(0.3)
        assert first == 0
        assert len(made) <= 5


def test_p7_few_programs(letters_job, tmp_path):
    report = batchinfer.run(letters_job(2000, **{"source.unit_bytes": 8192, "run.compile_cache": "none"}))
    assert report.compilations is not None
    assert 1 <= report.compilations <= 2  # the buckets 16 and 64
    assert report.units > 4


def test_p8_one_bad_row_is_one_rejection(letters_job, tmp_path):
    report = batchinfer.run(letters_job(ROWS))
    assert predictions(report.output) == [{"id": 0, "total": 6.0, "letters": 3}, {"id": 4, "total": 26.0, "letters": 1}]
    rows = [orjson.loads(line) for line in (tmp_path / "out/rejected/part-00000-of-00001.jsonl").open("rb")]
    path = str(tmp_path / "in.jsonl")
    assert rows == [
        {"key": 1, "uri": path, "row": 1, "stage": "prepare", "error": "empty", "message": "the text is empty",
         "record": {"id": 1, "text": ""}},
        {"key": 2, "uri": path, "row": 2, "stage": "prepare", "error": "marked", "message": "the text is marked",
         "record": {"id": 2, "text": "!no"}},
        {"key": 3, "uri": path, "row": 3, "stage": "prepare", "error": "KeyError", "message": "no such field: 'text'",
         "record": {"id": 3}},
    ]  # fmt: skip


def test_p8_the_error_budget_ends_the_job(letters_job, tmp_path):
    rows = [{"id": i, "text": "" if i % 2 else "abc"} for i in range(100)]
    with pytest.raises(
        ErrorBudgetError, match=r"50 of 100 records rejected \(50.0%: empty 50\); .* allows 10.0%"
    ) as info:
        batchinfer.run(letters_job(rows, **{"errors.max_rate": 0.1}))
    assert info.value.exit_code == 3
    assert not (tmp_path / "out/_SUCCESS").exists()
    report = batchinfer.run(letters_job(tmp_path / "in.jsonl", **{"errors.max_rate": 0.5}))
    assert (report.state, report.rejections) == ("nothing to do", 50)


def test_p8_replay_runs_only_the_rejected_rows(letters_job, tmp_path):
    batchinfer.run(letters_job(ROWS))
    report = batchinfer.replay(str(tmp_path / "out"))
    assert (report.rows_in, report.rejections) == (3, 3)
    assert report.output == str(tmp_path / "out-replay")
