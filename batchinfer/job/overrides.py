"""Fields set on the command line: `--config.a.b=value`, and the same from Python.

The text of a value means what the field's type says: `--config.task.text=1` is text, `--config.source.limit=1` a
number.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from batchinfer.errors import Fault, SpecError
from batchinfer.job.document import parse_value
from batchinfer.job.fields import Kind, kinds, kinds_at, reads_text
from batchinfer.job.tree import Node, from_plain, put


@dataclass(frozen=True, slots=True)
class Override:
    """One field set: `field` is dotted ("source.limit"); a `value` that is text is read by the field's type.

    A mapping replaces a whole section. `flag` is what messages call it; default `--config.<field>`.
    """

    field: str
    value: Any
    flag: str = ""

    @property
    def where(self) -> str:
        return self.flag or f"--config.{self.field}"

    @classmethod
    def from_flag(cls, argument: str) -> Override:
        """`--config.a.b=value`; without `=value` it means true."""
        name, equals, text = argument.removeprefix("--config.").partition("=")
        return cls(name, text if equals else True)


def apply(root: Node, overrides: Iterable[Override]) -> tuple[Node, list[Fault]]:
    """The job with every override set, in order, and what is wrong with their form."""
    faults: list[Fault] = []
    for override in overrides:
        path = override.field.split(".")
        if not all(path):
            faults.append(Fault(override.where, "", "should name a field: --config.batching.max_rows=64"))
            continue
        try:
            root = put(root, path, _node(override, tuple(path)))
        except SpecError as error:
            faults.extend(error.faults)
    return root, faults


def _node(override: Override, path: tuple[str, ...]) -> Node:
    if isinstance(override.value, str):
        return typed(override.value, kinds_at(path), override.where)
    return from_plain(override.value, override.where, path)


def typed(text: str, choices: list[Kind], where: str) -> Node:
    """What `text` means where one of `choices` is due: `null`; `[a, b]` or `a,b` for a list; `{a: 1}` for a mapping."""
    if text == "null":
        return Node(None, where, where)
    lists = [kind for kind in choices if get_origin(kind.type) is tuple]
    bracketed = text.startswith("[") and text.endswith("]")
    if lists and (bracketed or all(kind in lists or kind.type is NoneType for kind in choices)):
        items = [below for kind in lists for below in kinds(get_args(kind.type)[0])]
        return Node(tuple(typed(item, items, where) for item in _split(text, bracketed)), where, where)
    return Node(text, where, where) if reads_text(choices) else parse_value(text, where)


def _split(text: str, bracketed: bool) -> list[str]:
    inner = text[1:-1] if bracketed else text
    rows = list(csv.reader([inner], skipinitialspace=True)) if inner.strip() else []
    return [item.strip() for row in rows for item in row]
