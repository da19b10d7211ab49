"""Makes data/sentences.jsonl: real English out of the docstrings that every Python environment has.

    python jobs/data/make_sentences.py data/sentences.jsonl

A few seconds, no network, standard library only. Parses the source of the standard library (docstrings, and the help
topics of `pydoc_data`), then of installed packages until there is enough; imports none of it. The same environment
gives the same file, byte for byte. A row: {"id": "s000001", "text": "...", "module": "json.decoder"}. Four rows in
five are one sentence; the others are the same prose as whole paragraphs, and as passages of 100 to 400 words.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import json
import os
import re
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

WORDS_MIN = 4
WORDS_MAX = 400
PASSAGE_WORDS_MIN = 100

SENTENCES_WANTED = 16_000
PARAGRAPHS_PER_SENTENCE = 0.25
PASSAGES_PER_SENTENCE = 0.08
"""At most that many: about 20,000 rows in all, whose mean is 25 to 30 words."""

ROWS_MIN = 5_000
"""Fewer means that the source of the standard library is not there."""

PACKAGES = ("numpy", "sklearn", "scipy", "jax", "flax", "optax")
"""Read in this order, those that are installed, until there are enough sentences."""

NOT_READ = frozenset({"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"})

LONG_TEXT_CHARS = 500
"""A text in a module's dict that is at least this long is prose worth reading."""

PLAIN_SHARE = 0.85
"""Words of a sentence that must be plain English words; the rest may be names and numbers."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_RULER = re.compile(r"^\s*[-=~^*]{3,}\s*$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*+•|#]|\d+[.)]\s|\(\w\)|>>>|\.\. )")
_CODE = re.compile(r"[{}<>=|\\^~@]|::|\.\.\.|--|://")
_ROLE = re.compile(r":[a-z:]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`")
_PLAIN_WORD = re.compile(r"[\"'(]*[A-Za-z]+(?:[-'/][A-Za-z]+)*[.,;:!?\"')]*")

Paragraph = tuple[str, ...]
"""Its sentences."""


@dataclass(slots=True)
class Corpus:
    """Texts found so far, each once, with the module they are from."""

    sentences: dict[str, str] = field(default_factory=dict)
    paragraphs: dict[str, str] = field(default_factory=dict)
    passages: dict[str, str] = field(default_factory=dict)

    def add(self, module: str, prose: Sequence[Paragraph]) -> None:
        for paragraph in prose:
            for sentence in paragraph:
                self.sentences.setdefault(sentence, module)
            if len(paragraph) > 1 and count_words(" ".join(paragraph)) <= WORDS_MAX:
                self.paragraphs.setdefault(" ".join(paragraph), module)
        for passage in passages(prose):
            self.passages.setdefault(passage, module)

    def chosen(self) -> dict[str, str]:
        """Of each size as many as wanted, mixed; which, and in what order, goes by hashes of the text."""
        few = min(len(self.sentences), SENTENCES_WANTED)
        kept = some(self.sentences, few, "choice")
        kept |= some(self.paragraphs, int(few * PARAGRAPHS_PER_SENTENCE), "choice")
        kept |= some(self.passages, int(few * PASSAGES_PER_SENTENCE), "choice")
        return some(kept, len(kept), "order")  # another hash: by the first, the scarcer size would stand in front


def some(texts: dict[str, str], count: int, purpose: str) -> dict[str, str]:
    """`count` of the texts, in the order of a hash of each that is independent for each purpose."""
    order = sorted(texts, key=lambda text: digest(text, purpose))
    return {text: texts[text] for text in order[:count]}


def digest(text: str, purpose: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8, person=purpose.encode()).digest()


def count_words(text: str) -> int:
    return len(text.split())


# --- text -----------------------------------------------------------------------------------------------------------


def prose_of(docstring: str) -> list[Paragraph]:
    """Its paragraphs, and of those the sentences, that are prose."""
    found = (tuple(s for s in _SENTENCE_END.split(paragraph) if is_prose(s)) for paragraph in paragraphs(docstring))
    return [paragraph for paragraph in found if paragraph]


def paragraphs(docstring: str) -> Iterator[str]:
    """Paragraphs on one line each, without lists, tables, headings, directives and examples."""
    for block in re.split(r"\n\s*\n", docstring):
        lines = [line for line in block.splitlines() if line.strip()]
        margins = {len(line) - len(line.lstrip()) for line in lines}
        # Prose keeps its margin; definition lists and code do not.
        if len(margins) == 1 and not any(_LIST_ITEM.match(line) or _RULER.match(line) for line in lines):
            yield " ".join(without_markup(block).split())


def without_markup(text: str) -> str:
    """Marks around words go: :class:`list` and ``list`` both become list."""
    return _ROLE.sub(r"\1", text).replace("`", "")


def is_prose(sentence: str) -> bool:
    """Whether it reads as one English sentence: a capital first, a full stop last, mostly plain words between."""
    words = sentence.split()
    if not WORDS_MIN <= len(words) <= WORDS_MAX or _CODE.search(sentence):
        return False
    plain = sum(1 for word in words if _PLAIN_WORD.fullmatch(word))
    return sentence[0].isupper() and sentence[-1] in ".!?" and plain >= PLAIN_SHARE * len(words)


def passages(prose: Sequence[Paragraph]) -> Iterator[str]:
    """Neighbouring paragraphs joined into texts of PASSAGE_WORDS_MIN to WORDS_MAX words; what is left over is left out.

    How long each gets goes by a hash of its first sentence, so that all lengths occur.
    """
    texts: list[str] = []
    for paragraph in prose:
        texts.append(" ".join(paragraph))
        words = count_words(" ".join(texts))
        if words > WORDS_MAX:
            texts = []
        elif words >= wanted_words(texts[0]):
            yield " ".join(texts)
            texts = []


def wanted_words(text: str) -> float:
    """Between PASSAGE_WORDS_MIN and WORDS_MAX, equally often in each doubling."""
    share = int.from_bytes(digest(text, "length")) / 2**64
    return PASSAGE_WORDS_MIN * (WORDS_MAX / PASSAGE_WORDS_MIN) ** share


# --- source files ---------------------------------------------------------------------------------------------------


def read_corpus(places: Iterable[tuple[str, Path]]) -> Corpus:
    """The prose of each (module prefix, directory) in turn, until there are SENTENCES_WANTED sentences."""
    corpus = Corpus()
    for prefix, root in places:
        if len(corpus.sentences) >= SENTENCES_WANTED:
            break
        for path in source_files(root):
            module = module_name(prefix, path.relative_to(root))
            corpus.add(module, [paragraph for text in texts_of(path.read_bytes()) for paragraph in prose_of(text)])
    return corpus


def source_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*.py") if not NOT_READ.intersection(path.relative_to(root).parts))


def module_name(prefix: str, path: Path) -> str:
    parts = [*([prefix] if prefix else []), *path.with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def texts_of(source: bytes) -> Iterator[str]:
    """Docstrings of a module, and long texts it keeps in a dict (the help topics); nothing if it does not parse."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return  # files for another Python version are part of some packages
    yield from docstrings(tree)
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            yield from filter(None, map(long_text, statement.value.values))


def docstrings(node: ast.AST) -> Iterator[str]:
    """Of a module, class or function and of all that is defined in it, in the order of the file."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text is not None:
            yield text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler):  # nothing is defined inside an expression
            yield from docstrings(child)


def long_text(node: ast.expr) -> str | None:
    """The text that an expression is, if it is one of some length."""
    match node:
        case ast.Constant(value=str(text)) if len(text) >= LONG_TEXT_CHARS:
            return text
        case _:
            return None


def places() -> list[tuple[str, Path]]:
    """(module prefix, directory) of the standard library and of the installed packages worth reading."""
    paths = sysconfig.get_paths()
    packages = [(name, Path(paths["purelib"]) / name) for name in PACKAGES]
    return [("", Path(paths["stdlib"])), *((name, root) for name, root in packages if root.is_dir())]


# --- the file -------------------------------------------------------------------------------------------------------


def write_rows(path: Path, texts: dict[str, str]) -> None:
    """Writes all rows under the final name at once: a killed run leaves no half file that looks whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as stream:
            for number, (text, module) in enumerate(texts.items(), start=1):
                row = {"id": f"s{number:06d}", "text": text, "module": module}
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def summary(texts: Iterable[str], path: Path) -> str:
    """One line: rows; words least, mean, most; where."""
    words = [count_words(text) for text in texts]
    mean = sum(words) / len(words)
    return f"{len(words)} rows of {min(words)} to {max(words)} words (mean {mean:.1f}) in {path}"


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        print("usage: make_sentences.py PATH", file=sys.stderr)
        return 2
    gc.disable()  # syntax trees hold no cycles; looking for some takes most of the time
    warnings.simplefilter("ignore")  # of invalid escapes in other people's source
    path = Path(argv[0])
    texts = read_corpus(places()).chosen()
    if len(texts) < ROWS_MIN:
        where = sysconfig.get_paths()["stdlib"]
        print(f"{where}: only {len(texts)} sentences; is the library's source (*.py) installed?", file=sys.stderr)
        return 1
    write_rows(path, texts)
    print(summary(texts, path))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
