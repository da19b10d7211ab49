"""`${date}`, `${params.x}` and `${env.X}` in the values of a job.

A value that is one reference and nothing else keeps the param's type. `$${` is a plain `${`. `{{ column }}` and
`${{` belong to row templates and stay. What came from the environment is remembered: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date as Date
from datetime import timedelta

from batchinfer.errors import Fault
from batchinfer.job.document import scalar
from batchinfer.job.fields import kinds_at, reads_text
from batchinfer.job.suggest import did_you_mean
from batchinfer.job.tree import Node, Path, fault

_REFERENCE = re.compile(r"\$\$\{|\$\{(?!\{)(?P<name>[^{}]*)(?P<close>\}?)")
_DATE = re.compile(r"date(?P<days>[+-][0-9]{1,6})d|date")


class _Unresolved(Exception):
    """A reference that means nothing; the message says why. An empty one was reported elsewhere."""


@dataclass
class Substitution:
    """Resolves the references of one job.

    `faults` collects those that mean nothing; `unresolved` the (where, field) of every value left as it was written.
    """

    params: Mapping[str, Node]
    date: Date
    env: Mapping[str, str]
    faults: list[Fault] = field(default_factory=list)
    unresolved: set[tuple[str, str]] = field(default_factory=set)
    _resolved: dict[str, Node | None] = field(default_factory=dict)
    _trail: list[str] = field(default_factory=list)

    def apply(self, node: Node, path: Path = ()) -> Node:
        """`node` without references; a value with a fault stays as it was written."""
        match node.value:
            case dict(entries) if path == ("params",):
                return replace(node, value={name: self._param(name) or entry for name, entry in entries.items()})
            case dict(entries):
                return replace(node, value={key: self.apply(entry, (*path, key)) for key, entry in entries.items()})
            case tuple(items):
                return replace(node, value=tuple(self.apply(item, (*path, i)) for i, item in enumerate(items)))
            case str(text) if "${" in text:
                return self._text(node, text, path) or node
            case _:
                return node

    def _text(self, node: Node, text: str, path: Path) -> Node | None:
        whole = _REFERENCE.fullmatch(text)
        try:
            if whole and whole["name"] is not None:
                return self._whole(node, whole, path)
            pieces = list(self._pieces(text))
        except _Unresolved as problem:
            found = fault(node.where, path, str(problem))
            self.unresolved.add((found.where, found.field))
            if found.message:
                self.faults.append(found)
            return None
        value = "".join(value for value, _ in pieces)
        secret = any(value != shown for value, shown in pieces)
        shown = "".join(escape(value) if value == shown else shown for value, shown in pieces)
        return replace(node, value=value, shown=shown if secret else None)

    def _whole(self, node: Node, reference: re.Match[str], path: Path) -> Node:
        found = self._look_up(reference)
        value = found.value
        if found.shown is not None and isinstance(value, str) and path[:1] != ("params",):
            value = value if reads_text(kinds_at(path)) else scalar(value)  # the environment holds text only
        return replace(node, value=value, shown=found.shown)

    def _pieces(self, text: str) -> Iterator[tuple[str, str]]:
        """The text cut at its references: what each piece means, and what may be shown of it."""
        end = 0
        for reference in _REFERENCE.finditer(text):
            plain = text[end : reference.start()]
            yield plain, plain
            end = reference.end()
            if reference["name"] is None:
                yield "${", "${"
                continue
            found = self._look_up(reference)
            if found.value is None:
                name = reference["name"].removeprefix("params.")
                raise _Unresolved(f"{reference[0]} has no value yet: set it with --param {name}=...")
            value = _as_text(found)
            yield value, value if found.shown is None else found.shown
        yield text[end:], text[end:]

    def _look_up(self, reference: re.Match[str]) -> Node:
        name = reference["name"]
        if not reference["close"]:
            raise _Unresolved(f'"{reference[0]}" has no closing brace; for a plain "${{" write "$${{"')
        if day := _DATE.fullmatch(name):
            return Node(self._day(int(day["days"] or 0)), "")
        match name.partition("."):
            case "params", ".", param if param in self.params:
                if found := self._param(param):
                    return found
                raise _Unresolved
            case "env", ".", variable if variable in self.env:
                return Node(self.env[variable], "", shown=reference[0])
            case "env", ".", variable:
                raise _Unresolved(f"{reference[0]}: the environment variable {variable} is not set")
        known = ["date", *(f"params.{param}" for param in self.params)]
        defined = ", ".join(f"${{{one}}}" for one in known)
        hint = did_you_mean(name, known)
        raise _Unresolved(f"{reference[0]} is not defined{hint}; defined are {defined} and ${{env.NAME}}")

    def _day(self, offset: int) -> str:
        try:
            return (self.date + timedelta(days=offset)).isoformat()
        except OverflowError:
            raise _Unresolved(f"${{date{offset:+}d}} is outside the calendar") from None

    def _param(self, name: str) -> Node | None:
        """The param without references, None if it has a fault (reported once, at the param)."""
        if name in self._trail:
            circle = " -> ".join([*self._trail[self._trail.index(name) :], name])
            raise _Unresolved(f"params refer to each other in a circle: {circle}")
        if name not in self._resolved:
            self._trail.append(name)
            node = self.params[name]
            text = node.value
            self._resolved[name] = (
                self._text(node, text, ("params", name)) if isinstance(text, str) and "${" in text else node
            )
            self._trail.pop()
        return self._resolved[name]


def escape(text: str) -> str:
    """Text written so that a job file gives it back: `${` doubled."""
    return text.replace("${", "$${")


def _as_text(node: Node) -> str:
    match node.value:
        case bool(value):
            return "true" if value else "false"
        case str() | int() | float():
            return str(node.value)
        case _:
            raise _Unresolved("a list or mapping cannot stand inside text")
