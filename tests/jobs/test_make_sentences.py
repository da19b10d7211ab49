"""The script that makes the input of jobs/embed.yaml."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from jobs.data import make_sentences
from jobs.data.make_sentences import Corpus, is_prose, module_name, passages, prose_of, read_corpus, texts_of

SCRIPT = Path(make_sentences.__file__)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file the script makes when it is run as a job runs it, and what it printed."""
    path = tmp_path_factory.mktemp("made") / "new" / "folder" / "sentences.jsonl"
    done = subprocess.run([sys.executable, SCRIPT, path], capture_output=True, text=True, timeout=100, check=True)
    return path, done.stdout


@pytest.fixture(scope="module")
def rows(made: tuple[Path, str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in made[0].read_text("utf-8").splitlines()]


def test_there_are_enough_texts_of_mixed_length(rows: list[dict[str, str]]) -> None:
    words = [len(row["text"].split()) for row in rows]
    assert 12_000 <= len(rows) <= 21_000
    assert min(words) == 4
    assert 350 < max(words) <= 400
    assert 20 <= sum(words) / len(words) <= 32
    assert 0.03 <= sum(count >= 100 for count in words) / len(words) <= 0.1
    # Mixed: no stretch of the file is all short or all long.
    tenth = len(words) // 10
    means = [sum(words[i * tenth : (i + 1) * tenth]) / tenth for i in range(10)]
    assert max(means) < 1.3 * min(means)


def test_rows_are_named_and_no_text_comes_twice(rows: list[dict[str, str]]) -> None:
    assert [row["id"] for row in rows[:2]] == ["s000001", "s000002"]
    assert len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == len(rows)
    assert all(row.keys() == {"id", "text", "module"} for row in rows)
    assert {"json.decoder", "pydoc_data.topics"} <= {row["module"] for row in rows}


def test_it_prints_one_line_and_leaves_one_file(made: tuple[Path, str], rows: list[dict[str, str]]) -> None:
    path, printed = made
    assert printed.startswith(f"{len(rows)} rows of 4 to ")
    assert printed.endswith(f"in {path}\n")
    assert [child.name for child in path.parent.iterdir()] == ["sentences.jsonl"]


def test_the_same_source_gives_the_same_rows() -> None:
    root = Path(sysconfig.get_paths()["stdlib"]) / "json"
    once, again = (read_corpus([("json", root)]).chosen() for _ in range(2))
    assert list(once.items()) == list(again.items())
    assert {"json", "json.decoder", "json.encoder"} <= set(once.values())


def test_a_broken_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        make_sentences.write_rows(tmp_path / "sentences.jsonl", {"A good row.": "m", "A bad row.": object()})  # type: ignore[dict-item]
    assert list(tmp_path.iterdir()) == []


def test_a_library_without_source_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make_sentences, "read_corpus", lambda _: Corpus())
    assert make_sentences.main([str(tmp_path / "sentences.jsonl")]) == 1
    assert "is the library's source (*.py) installed?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_path_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert make_sentences.main([]) == 2
    assert "usage: make_sentences.py PATH" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        "Return the number of bytes that were read.",
        "The Schrödinger equation is written out below.",
        "It's a well-known method (see the manual), isn't it?",
        "Calling flush() on a closed file raises a ValueError and changes nothing else.",
    ],
)
def test_prose_is_kept(text: str) -> None:
    assert is_prose(text)


@pytest.mark.parametrize(
    "text",
    [
        "Too few words.",
        "no capital letter at its beginning.",
        "It has no full stop at its end",
        "The call f(x) -> int is code, not prose.",
        "Set x = 1 to switch it on.",
        "A list of x_1 y_2 z_3 a_4 names.",
        "Word " * 401 + "end.",
    ],
)
def test_what_is_not_prose_is_dropped(text: str) -> None:
    assert not is_prose(text)


def test_a_docstring_becomes_paragraphs_of_sentences() -> None:
    docstring = inspect.cleandoc(
        """Return the *first* item
        of a :class:`list` as it is. It is not copied!

        Parameters
        ----------
        x : int
            This line describes the argument x.

        - This item of a list is left out.

            >>> f("This example is left out.")

        The ``second`` paragraph is kept too.
        """
    )
    assert prose_of(docstring) == [
        ("Return the *first* item of a list as it is.", "It is not copied!"),
        ("The second paragraph is kept too.",),
    ]


def test_docstrings_are_found_wherever_something_is_defined() -> None:
    source = b'''"""Module."""
def f():
    """Function."""
    class Inner:
        """Class in a function."""
try:
    pass
except ImportError:
    def g():
        """Function in a handler."""
x = """Not a docstring."""
'''
    assert list(texts_of(source)) == ["Module.", "Function.", "Class in a function.", "Function in a handler."]


def test_a_file_that_does_not_parse_gives_nothing() -> None:
    assert list(texts_of(b"print 'python 2'")) == []


def test_long_texts_kept_in_a_dict_are_read() -> None:
    topic = "Help about something. " * 40
    assert list(texts_of(f"topics = {{'a': {topic!r}, 'b': 'short', 'c': 1}}".encode())) == [topic]


def test_passages_are_whole_paragraphs_within_the_limits() -> None:
    prose = [(f"Paragraph number {i} has a few words.", "And " + "so on " * 20 + "to its end.") for i in range(60)]
    texts = list(passages(prose))
    whole = {" ".join(paragraph) for paragraph in prose}
    assert len(texts) > 3
    assert all(100 <= len(text.split()) <= 400 for text in texts)
    assert len({len(text.split()) for text in texts}) > 1
    parts = [part for text in texts for part in text.split("Paragraph ")[1:]]
    assert {f"Paragraph {part.strip()}" for part in parts} <= whole


def test_a_paragraph_longer_than_a_passage_may_be_is_left_out() -> None:
    assert list(passages([("word " * 401,)])) == []


@pytest.mark.parametrize(
    ("prefix", "path", "name"),
    [
        ("", "json/__init__.py", "json"),
        ("", "abc.py", "abc"),
        ("numpy", "__init__.py", "numpy"),
        ("numpy", "ma/core.py", "numpy.ma.core"),
    ],
)
def test_module_names(prefix: str, path: str, name: str) -> None:
    assert module_name(prefix, Path(path)) == name
