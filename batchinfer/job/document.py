"""The door to YAML: text to a tree that remembers line and column, and back. No other module knows the library.

YAML 1.2 core schema, read as events, so nothing in a file can make an object. Left out on purpose: tags, anchors
and aliases, several documents. Keys are always text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import RoundTripRepresenter

from batchinfer.errors import Fault, SpecError
from batchinfer.job.tree import Node, Path, Scalar, dotted

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

_INT = re.compile(r"[-+]?[0-9]{1,400}")
_BASED = re.compile(r"0o[0-7]{1,400}|0x[0-9a-fA-F]{1,400}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def read_document(path: str) -> Node:
    """The mapping in a YAML file. Raises SpecError with every fault of its form, each at file:line:column."""
    try:
        with FilePath(path).open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError([Fault(path, "", "there is no such file")]) from None
    except OSError as error:
        raise SpecError([Fault(path, "", f"cannot be read: {error.strerror}")]) from None
    if len(data) > MAX_BYTES:
        raise SpecError([Fault(path, "", "is larger than 1 MiB: not a job file")])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SpecError([Fault(f"{path}:{line}", "", "is not UTF-8 text")]) from None
    return parse_mapping(text, path)


def parse_mapping(text: str, name: str) -> Node:
    """The mapping in YAML text, called `name` in messages."""
    node = _parse(text, lambda mark: f"{name}:{mark.line + 1}:{mark.column + 1}", name)
    match node:
        case None:
            raise SpecError([Fault(name, "", "is empty: a job needs at least name, source, task and model")])
        case Node(value=dict()):
            return Node(node.value, name, name)
        case _:
            raise SpecError([Fault(node.where, "", "a job is a mapping: lines of `key: value`")])


def parse_value(text: str, where: str) -> Node:
    """One value as written in a flag: quoted text, a list or a mapping in YAML's flow style, or a plain scalar."""
    if text.startswith(("[", "{", '"', "'")):
        return _parse(text, lambda mark: where, where) or Node(None, where, where)
    return Node(scalar(text), where, where)


def scalar(text: str) -> Scalar:
    """What unquoted text means in YAML 1.2 (core schema): `yes` and `2026-11-22` are text, `1e3` is a number."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def dump(value: Any) -> str:
    """YAML that reads back as the same plain values; keys keep their order."""
    yaml = YAML(pure=True)
    yaml.Representer = _Representer
    yaml.width = 1 << 30
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()


class _Representer(RoundTripRepresenter):
    """Quotes whatever could be read as something else, and says null."""

    def text(self, text: str) -> Any:
        safe = re.fullmatch(r"[A-Za-z/][\w./ -]*(?<! )", text, re.ASCII) and isinstance(scalar(text), str)
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if safe else '"')

    def null(self, _: None) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(str, _Representer.text)
_Representer.add_representer(type(None), _Representer.null)


# --- events to a tree -----------------------------------------------------------------------------------------------


def _parse(text: str, place: Callable[[StringMark], str], name: str) -> Node | None:
    """The one document in `text`, None if there is none."""
    events: Iterator[Event] = YAML(typ="safe", pure=True).parse(text)
    builder = _Builder(events, place)
    root = None
    try:
        root = builder.document()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML"
        raise SpecError([Fault(f"{name}:{line}", "", message)]) from None
    except MarkedYAMLError as error:
        builder.faults.append(_syntax_fault(error, text, place, name))
    except YAMLError as error:
        builder.faults.append(Fault(name, "", f"is not YAML: {error}"))
    if builder.faults:
        raise SpecError(builder.faults)
    return root


class _Builder:
    """Reads one document from the stream of events; goes on after a fault to find the others."""

    def __init__(self, events: Iterator[Event], place: Callable[[StringMark], str]):
        self._events = events
        self._place = place
        self.faults: list[Fault] = []

    def document(self) -> Node | None:
        root = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent) and root is not None:
                self._fault(event, (), "a second document starts here: one job per file")
                break
            if isinstance(event, NodeEvent):
                root = self._node(event, (), self._place(event.start_mark))
        return root

    def _node(self, event: NodeEvent, path: Path, key_where: str) -> Node:
        where = self._place(event.start_mark)
        if isinstance(event, AliasEvent) or event.anchor is not None:
            self._fault(event, path, "anchors and aliases (& and *) are not supported; use params: ${params.x}")
        elif isinstance(event, ScalarEvent | CollectionStartEvent) and event.tag is not None:
            self._fault(event, path, f"tags ({event.tag}) are not supported")
        match event:
            case ScalarEvent():
                value = scalar(event.value) if event.implicit[0] else event.value
                return Node(value, where if event.value else key_where, key_where)
            case SequenceStartEvent():
                return Node(tuple(self._items(path)), where, key_where)
            case MappingStartEvent():
                return Node(self._entries(path), where, key_where)
            case _:
                return Node(None, where, key_where)

    def _items(self, path: Path) -> Iterator[Node]:
        for i, event in enumerate(self._below(path, SequenceEndEvent)):
            yield self._node(event, (*path, i), self._place(event.start_mark))

    def _entries(self, path: Path) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        events = self._below(path, MappingEndEvent)
        for event in events:
            key = self._key(event, path)
            where = self._place(event.start_mark)
            node = self._node(next(events), (*path, key), where)
            if key in entries:
                self._fault(event, (*path, key), f"given twice (first at {entries[key].key_where})")
            entries.setdefault(key, node)
        return entries

    def _key(self, event: NodeEvent, path: Path) -> str:
        if isinstance(event, ScalarEvent):
            return event.value
        self._fault(event, path, "a key should be text")
        self._node(event, path, "")
        return ""

    def _below(self, path: Path, end: type[Event]) -> Iterator[NodeEvent]:
        for event in self._events:
            if isinstance(event, end):
                return
            if len(path) >= MAX_DEPTH:
                raise SpecError([Fault(self._place(event.start_mark), "", f"nested deeper than {MAX_DEPTH} levels")])
            assert isinstance(event, NodeEvent)  # the library pairs starts and ends
            yield event

    def _fault(self, event: Event, path: Path, message: str) -> None:
        self.faults.append(Fault(self._place(event.start_mark), dotted(path), message))


def _syntax_fault(error: MarkedYAMLError, text: str, place: Callable[[StringMark], str], name: str) -> Fault:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Fault(name, "", f"is not YAML: {error.problem}")
    before = "".join(text.splitlines(keepends=True)[mark.line : mark.line + 1])[: mark.column + 1]
    if before.endswith("\t"):
        message = "a tab: YAML wants spaces here"
    elif before.endswith("${"):
        message = 'put quotes around a value with ${...} inside { } or [ ]: "data/${date}"'
    else:
        message = f"is not YAML: {error.problem}"
    return Fault(place(mark), "", message)
