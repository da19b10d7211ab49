"""What the command line prints, and its exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import orjson
import pytest
from conftest import LETTERS_JOB, launch_environment, write_jsonl

from batchinfer.cli import main


@pytest.fixture
def job_file(tmp_path, compile_cache):
    """A job file over the fake model; `job_file(rows)` writes its input too."""

    def make(rows, settings=""):
        path = write_jsonl(tmp_path / "in.jsonl", rows)
        text = LETTERS_JOB.replace("PATH", json.dumps(str(path)))
        text = text.replace("{format: jsonl}", f"{{format: jsonl, path: {json.dumps(str(tmp_path / 'out'))}}}")
        text = text.replace("progress_seconds: 3600.0", f"compile_cache: {json.dumps(compile_cache)}")
        (tmp_path / "job.yaml").write_text(text + settings)
        return str(tmp_path / "job.yaml")

    return make


def test_run_then_nothing_to_do(job_file, tmp_path, capsys):
    job = job_file(30)
    assert main([job, "--quiet"]) == 0
    first = capsys.readouterr().out
    assert "letters: done" in first
    assert "30 in, 30 predicted, 0 rejected" in first
    assert "programs in" in first
    assert f"head -n 2 {tmp_path}/out/part-00000-of-00001.jsonl" in first
    assert main([job]) == 0
    assert "letters: nothing to do, everything was done before" in capsys.readouterr().out


def test_a_finished_output_that_was_damaged_is_not_called_done(job_file, tmp_path, capsys):
    job = job_file(30)
    main([job, "--quiet"])
    part = tmp_path / "out/part-00000-of-00001.jsonl"
    part.write_bytes(part.read_bytes().replace(b"1", b"2"))
    assert main([job, "--quiet"]) == 1
    assert "its bytes have changed since the commit (sha256 differs)" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "out")]) == 1


def test_verify_and_status(job_file, tmp_path, capsys):
    job = job_file([{"id": 1, "text": "a"}, {"id": 2, "text": ""}])
    assert main([job, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert "every file and every count is as committed" in capsys.readouterr().out
    assert main(["status", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "letters: finished" in out
    assert "2 of 2 in, 1 predicted, 1 rejected" in out
    assert "empty 1" in out


@pytest.mark.parametrize("damage", ["gone", "longer", "bytes", "count"])
def test_verify_finds_every_kind_of_damage(job_file, tmp_path, capsys, damage):
    main([job_file(30), "--quiet"])
    part = tmp_path / "out/part-00000-of-00001.jsonl"
    data = part.read_bytes()
    expected = {
        "gone": "part-00000-of-00001.jsonl: gone",
        "longer": f"{len(data) + 1} bytes, committed with {len(data)}",
        "bytes": "its bytes have changed since the commit",
        "count": "files does not agree with the commits",
    }
    if damage == "gone":
        part.unlink()
    elif damage == "longer":
        part.write_bytes(data + b"\n")
    elif damage == "bytes":
        part.write_bytes(data.replace(b"0", b"1"))
    else:
        manifest = tmp_path / "out/_MANIFEST.json"
        manifest.write_bytes(manifest.read_bytes().replace(b'"rows": 30', b'"rows": 31'))
    assert main(["verify", str(tmp_path / "out")]) == 1
    assert expected[damage] in capsys.readouterr().out


def test_verify_status_and_errors_of_no_output(tmp_path, capsys):
    for command in ("status", "errors"):
        assert main([command, str(tmp_path)]) == 2
        assert "there is no plan here" in capsys.readouterr().err
    assert main(["verify", str(tmp_path)]) == 1
    assert "there is no plan here" in capsys.readouterr().out


def test_plan_starts_no_jax_and_writes_nothing(job_file, tmp_path):
    job = job_file(300)
    code = f"import sys; from batchinfer.cli import main; main(['plan', {job!r}]); sys.exit('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=launch_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "name: letters" in done.stdout
    assert "1 unit, 300 rows" in done.stdout
    assert "0 of 1 unit done" in done.stdout
    assert not (tmp_path / "out").exists()


def test_plan_of_a_conflicting_output_says_so(job_file, tmp_path, capsys):
    job = job_file(30)
    main([job, "--quiet"])
    assert main(["plan", job, "--limit=5"]) == 0
    assert "holds another plan: running would be refused without --overwrite" in capsys.readouterr().out


def test_conflict_and_overwrite(job_file, capsys):
    job = job_file(30)
    assert main([job, "--quiet"]) == 0
    assert main([job, "--quiet", "--limit=5"]) == 2
    assert "source.limit: none -> 5" in capsys.readouterr().err
    assert main([job, "--quiet", "--limit=5", "--overwrite"]) == 0
    assert "5 in, 5 predicted" in capsys.readouterr().out


def test_dry_run_shows_predictions_and_writes_nothing(job_file, tmp_path, capsys):
    job = job_file([{"id": 7, "text": "abc"}, {"id": 8, "text": ""}])
    assert main([job, "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert '7  id=7, text="abc"\n  -> total=6.0, letters=3' in out
    assert "-> rejected (prepare, empty): the text is empty" in out
    assert not (tmp_path / "out").exists()


def test_errors_lists_and_replays(job_file, tmp_path, capsys):
    main([job_file([{"id": 1, "text": "a"}, {"id": 2, "text": ""}]), "--quiet"])
    capsys.readouterr()
    assert main(["errors", str(tmp_path / "out")]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["key"], row["error"], row["stage"]) == (2, "empty", "prepare")
    assert main(["errors", str(tmp_path / "out"), "--replay", "--quiet"]) == 0
    assert "1 in, 0 predicted, 1 rejected" in capsys.readouterr().out


def test_error_budget_is_exit_3(job_file, capsys):
    job = job_file([{"id": i, "text": ""} for i in range(10)])
    assert main([job, "--quiet", "--config.errors.max_rate=0.5"]) == 3
    assert "10 of 10 records rejected (100.0%: empty 10); errors.max_rate allows 50.0%" in capsys.readouterr().err


def test_every_fault_of_a_job_file_at_once(job_file, capsys):
    job = job_file(3, "batching2: {}\n")
    with open(job) as stream:
        text = stream.read()
    with open(job, "w") as stream:
        stream.write(text.replace("max_tokens: 256", 'max_tokens: "many"').replace("seed", "sed"))
    assert main([job, "--config.run.sed=1", "--config.source.limit=-4"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert any("job.yaml:6:" in line and "batching.max_tokens" in line and '"many"' in line for line in lines)
    assert any("batching2: unknown key (did you mean batching?)" in line for line in lines)
    assert any(line.startswith("--config.run.sed: unknown key (did you mean seed?)") for line in lines)
    assert any(line.startswith("--config.source.limit") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--limt=3", "x.yaml"], "Unknown command line flag 'limt'. Did you mean: limit"),
        (["x.yaml", "--limit=0"], "flag --limit=0"),
        (["x.yaml", "y.yaml"], "needs one job file and nothing else"),
        (["none.yaml"], "none.yaml: there is no such file"),
        (["x.yaml", "--date=2026-13-01"], 'should be YYYY-MM-DD, got "2026-13-01"'),
        (["x.yaml", "--param", "novalue"], 'should be x=value, got "novalue"'),
    ],
)
def test_bad_command_lines_are_exit_2_in_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_unknown_beam_options_are_faults(job_file, capsys):
    job = job_file(3)
    assert main([job, "--quiet", "--config.run.beam_options.direct_num_worker=2"]) == 2
    assert "run.beam_options.direct_num_worker: Beam has no such option (did you mean direct_num_workers?)" in (
        capsys.readouterr().err
    )


def test_schema_is_json(capsys):
    assert main(["schema"]) == 0
    assert orjson.loads(capsys.readouterr().out)["additionalProperties"] is False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_interrupted_is_exit_75_and_resumes(job_file, tmp_path, number):
    job = job_file(3000)
    slow = ["--config.source.unit_bytes=2048", "--config.task.kwargs.pause_seconds=0.002"]
    command = [sys.executable, "-m", "batchinfer", job, *slow]
    process = subprocess.Popen(command, env=launch_environment(), stderr=subprocess.PIPE, text=True)
    commits = tmp_path / "out/_batchinfer/commits"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not commits.is_dir() or len(list(commits.iterdir())) < 2):
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert f"interrupted by {number.name}: " in err
    assert "run the same command to go on" in err
    assert "Traceback" not in err
    before = len(list(commits.iterdir()))
    assert main([job, "--quiet", *slow]) == 0
    manifest = orjson.loads((tmp_path / "out/_MANIFEST.json").read_bytes())
    assert manifest["rows_in"] == 3000
    assert 2 <= before < manifest["units"]
