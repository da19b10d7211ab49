"""What the benchmarks share, and that every script starts. Nothing is measured here."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.common import SideError, Spread, Worker, chosen, environment, interleaved, table, turns, wanted

FOLDER = Path(common.__file__).parent
SCRIPTS = ("embed_peers.py", "whole_command.py", "overhead.py", "memory.py", "startup.py")


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_what_it_measures(script: str) -> None:
    done = subprocess.run([sys.executable, FOLDER / script, "--help"], capture_output=True, text=True, check=True)
    assert "--cores" in done.stdout
    assert script in (FOLDER / "README.md").read_text()
    assert script in (FOLDER / "RESULTS.md").read_text()


def test_the_same_sentences_are_chosen_every_time() -> None:
    lines = [b"%d\n" % number for number in range(1000)]
    some = chosen(lines, 100)
    assert some == chosen(lines, 100)
    assert some == sorted(some, key=lines.index)
    assert len(set(some)) == 100
    assert set(chosen(lines, 50)) < set(some)


def test_more_sentences_than_there_are_is_an_error() -> None:
    with pytest.raises(SystemExit, match=r"--rows=3: there are only 2 sentences"):
        chosen([b"1", b"2"], 3)


def test_sides_take_turns_and_each_begins_a_round() -> None:
    order = list(turns(["a", "b", "c"], 3))
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert Counter(turns(["a", "b"], 5)) == {"a": 5, "b": 5}


def test_every_side_is_measured_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "SETTLE_SECONDS", 0)
    calls: list[str] = []
    results = interleaved({name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}, 2)
    assert results == {"a": [1, 4], "b": [2, 3]}


def test_a_spread_shows_median_and_extremes() -> None:
    assert Spread.of([3.0, 1.0, 1000.0]).cells(1) == ("3.0", "1.0 to 1,000.0")


def test_a_table_is_lined_up() -> None:
    assert table(("a", "much"), [("1", "2"), ("long", "")]) == (
        "| a    | much |\n| ---- | ---- |\n| 1    | 2    |\n| long |      |"
    )


def test_what_was_wanted_is_said_beside_what_was_measured() -> None:
    assert wanted("speed", 1.75, least=1.7) == "- speed: 1.75, wanted >= 1.7: yes"
    assert wanted("speed", 1.69, least=1.7) == "- speed: 1.69, wanted >= 1.7: NO"
    assert wanted("share", 0.8, most=0.7) == "- share: 0.8, wanted <= 0.7: NO"
    assert wanted("share", float("nan"), most=0.7) == "- share: not measured, wanted <= 0.7"


SIDE = """
from benchmarks.common import serve

def open_side():
    print("a library that chats")
    return {"note": "ready"}, {"double": lambda word: {"said": word + word}}

serve(open_side)
"""


def test_a_worker_answers_until_it_is_closed(tmp_path: Path) -> None:
    script = tmp_path / "side.py"
    script.write_text(SIDE)
    with Worker([sys.executable, script], environment()) as worker:
        assert worker.ready == {"note": "ready"}
        assert worker.ask("double", "hey") == {"said": "heyhey"}
        assert worker.ask("double", "ho") == {"said": "hoho"}


def test_a_side_that_cannot_run_here_says_why() -> None:
    with pytest.raises(SideError, match=r"status 1: ModuleNotFoundError: No module named 'no_such_library'"):
        Worker([sys.executable, "-c", "import no_such_library"], environment())
