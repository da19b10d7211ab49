"""A job before it has types: values, each with the place it was written. Layers are merged here.

Knows nothing of files, flags or the spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, TypeAlias

from batchinfer.errors import Fault, SpecError

Scalar: TypeAlias = str | int | float | bool | None
Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One value. `where` is its place ("job.yaml:3:7", an overlay's file, a flag), `key_where` the place of its key.

    `shown` stands in for the value wherever people see it: the value holds a secret from the environment.
    """

    value: Scalar | tuple[Node, ...] | dict[str, Node]
    where: str
    key_where: str = ""
    shown: str | None = None


def dotted(path: Path) -> str:
    """`("sink", "include", 0)` as people write it: `sink.include[0]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def fault(where: str, path: Path, message: str) -> Fault:
    """A fault at `path`; a flag that is named like its field does not name it twice."""
    field = dotted(path)
    return Fault(where, "" if where == f"--config.{field}" else field, message)


def from_plain(value: Any, where: str, path: Path = ()) -> Node:
    """A tree of Python values, all from one place. Raises SpecError for a value that a job file could not hold."""
    match value:
        case None | bool() | int() | float() | str():
            return Node(value, where, where)
        case PurePath():
            return Node(str(value), where, where)
        case list() | tuple():
            return Node(tuple(from_plain(item, where, (*path, i)) for i, item in enumerate(value)), where, where)
        case Mapping() if all(isinstance(key, str) for key in value):
            return Node({key: from_plain(item, where, (*path, key)) for key, item in value.items()}, where, where)
        case Mapping():
            raise SpecError([fault(where, path, "every key should be text")])
        case _:
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            message = f"a job holds text, numbers, true, false, null, lists and mappings, not a {kind}"
            raise SpecError([fault(where, path, message)])


def plain(node: Node, *, for_people: bool = False) -> Any:
    """The values alone, lists as lists; with `for_people` secrets are replaced by what may be shown."""
    match node.value:
        case dict(entries):
            return {key: plain(entry, for_people=for_people) for key, entry in entries.items()}
        case tuple(items):
            return [plain(item, for_people=for_people) for item in items]
        case scalar:
            return node.shown if for_people and node.shown is not None else scalar


def merge(low: Node, high: Node) -> Node:
    """`high` laid over `low`: mappings key by key, everything else (lists too) as a whole."""
    if not (isinstance(low.value, dict) and isinstance(high.value, dict)):
        return high
    merged = dict(low.value)
    for key, entry in high.value.items():
        merged[key] = merge(merged[key], entry) if key in merged else entry
    return replace(low, value=merged)


def put(node: Node, path: Sequence[str], value: Node) -> Node:
    """`node` with `value` at `path`, replacing what was there; mappings on the way are made."""
    if not path:
        return value
    entries = node.value if isinstance(node.value, dict) else {}
    below = entries.get(path[0], Node({}, value.where, value.where))
    return replace(
        node if isinstance(node.value, dict) else value, value={**entries, path[0]: put(below, path[1:], value)}
    )


def find(node: Node, path: Path) -> Node | None:
    """The node at `path`, or None."""
    for step in path:
        match node.value, step:
            case dict(entries), str() if step in entries:
                node = entries[step]
            case tuple(items), int() if step < len(items):
                node = items[step]
            case _:
                return None
    return node


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every scalar, list item included, and every empty list or mapping, with its path."""
    match node.value:
        case dict(entries) if entries:
            for key, entry in entries.items():
                yield from leaves(entry, (*path, key))
        case tuple(items) if items:
            for i, item in enumerate(items):
                yield from leaves(item, (*path, i))
        case _:
            yield path, node
