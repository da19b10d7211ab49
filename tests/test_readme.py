"""The README tells the truth: its job is the job, its commands run, its paths exist."""

from __future__ import annotations

import re
import shlex

import pytest
from conftest import REPOSITORY

from batchinfer.cli import main
from batchinfer.job import load, load_text

README = (REPOSITORY / "README.md").read_text()
COMMANDS = [
    command for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE) for command in re.findall(r"`([^`]+)`", row)
]


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def test_the_job_in_the_readme_is_the_job_in_the_repository():
    shown = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    assert load_text(shown.group(1), "README.md").spec == load("jobs/embed.yaml").spec


def test_the_two_commands_are_what_ci_runs():
    assert "./launch.sh test" in README
    assert "./launch.sh test" in (REPOSITORY / ".ci/run").read_text()
    assert (REPOSITORY / "launch.sh").stat().st_mode & 0o111


def test_every_command_of_the_readme_runs(tmp_path, compile_cache, capsys):
    """In the order of the README, on a few rows, with the output elsewhere."""
    assert len(COMMANDS) >= 10
    small = ["--limit=12", "--quiet", f"--config.run.compile_cache={compile_cache}"]
    main(["jobs/embed.yaml", *small, f"--config.sink.path={tmp_path}/embed"])
    for command in COMMANDS:
        words = shlex.split(command.removesuffix(" [--replay]"))
        words = [word.replace("out/", f"{tmp_path}/") for word in words]
        if any(word.startswith("jobs/") for word in words):
            name = next(word for word in words if word.startswith("jobs/")).removeprefix("jobs/").removesuffix(".yaml")
            words = [words[0], *small, f"--config.sink.path={tmp_path}/{name}", *words[1:]]
        assert main(words) == 0, command
        capsys.readouterr()


def test_every_path_of_the_file_tree_exists():
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", README, re.DOTALL)
    assert tree is not None
    parents = ""
    for line in tree.group(1).splitlines():
        name = line.split()[0]
        parents = name if line[0] != " " else parents
        assert (REPOSITORY / (name if line[0] != " " else parents + name)).exists(), line


def test_python_example_of_the_readme(tmp_path, monkeypatch):
    """`batchinfer.run(batchinfer.load_job(...))`, as it stands there."""
    example = re.search(r"From Python: `(.*?)`", README)
    assert example is not None
    code = example.group(1).replace('"source.limit": 100', f'"source.limit": 5, "sink.path": "{tmp_path}/out"')
    import batchinfer

    report = eval(code, {"batchinfer": batchinfer})
    assert (report.rows_in, report.state) == (5, "done")
