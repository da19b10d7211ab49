"""Turns what the typed model finds wrong into faults people can act on: where it is, what is due, what is there.

The only module that knows the validation library's error names.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import ValidationError

from batchinfer.errors import Fault
from batchinfer.job.fields import Kind, is_section, keys_everywhere, kinds, of_field, tags, words
from batchinfer.job.section import Section
from batchinfer.job.spec import JobSpec
from batchinfer.job.suggest import did_you_mean
from batchinfer.job.tree import Node, Path, fault, find, plain

MAX_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class _Choice:
    """How the kind of a section was chosen: at `path` stands `tag` ("source.format", "csv")."""

    path: Path
    tag: str
    siblings: list[Kind]


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where in the job an error is. `due`: empty for an unknown key; `tag_key`: set for a section of several kinds."""

    path: Path
    due: list[Kind]
    section: type[Section]
    choice: _Choice | None
    tag_key: str | None = None


def explain(error: ValidationError, root: Node) -> list[Fault]:
    """One fault for each thing wrong, in the order of the spec. `root` is the tree that was validated."""
    found = (_fault(one, root) for one in error.errors(include_url=False, include_input=False))
    return list(dict.fromkeys(found))


def _fault(error: Any, root: Node) -> Fault:
    spot = _locate(error["loc"])
    match error["type"]:
        case "missing":
            return fault(_place(root, spot.path[:-1]), spot.path, _missing(spot))
        case "extra_forbidden":
            return _unknown_key(spot, root)
        case "union_tag_not_found" | "union_tag_invalid":
            return _wrong_tag(spot, root)
        case "value_error":
            message = str(error["ctx"]["error"])
        case _:
            message = f"should be {words(spot.due)}, got {_shown(find(root, spot.path))}"
    place = _place(root, spot.path)
    return fault(place, spot.path, message + _because(spot, root, place))


def _missing(spot: _Spot) -> str:
    if spot.tag_key is None:
        return f"missing: should be {words(spot.due)}"
    return f"missing: should be a section with {spot.tag_key}: {', '.join(_all_tags(spot.due, spot.tag_key))}"


def _unknown_key(spot: _Spot, root: Node) -> Fault:
    node, key = find(root, spot.path), str(spot.path[-1])
    place = node.key_where if node else ""
    others = [kind for kind in spot.choice.siblings if key in kind.type.model_fields] if spot.choice else []
    if spot.choice and others:
        tag_key = str(spot.choice.path[-1])
        message = f"no key of {tag_key} {spot.choice.tag}, but of {', '.join(_all_tags(others, tag_key))}"
    else:
        message = "unknown key" + (did_you_mean(key, spot.section.model_fields) or _elsewhere(key))
    return fault(place, spot.path, message + _because(spot, root, place))


def _elsewhere(key: str) -> str:
    found = keys_everywhere().get(key)
    return f" (did you mean {found}?)" if found else ""


def _wrong_tag(spot: _Spot, root: Node) -> Fault:
    assert spot.tag_key is not None
    choices = _all_tags(spot.due, spot.tag_key)
    path = (*spot.path, spot.tag_key)
    node = find(root, path)
    if node is None:
        return fault(_place(root, spot.path), path, f"missing: should be one of {', '.join(choices)}")
    hint = did_you_mean(str(node.value), choices)
    return fault(node.where, path, f"should be one of {', '.join(choices)}, got {_shown(node)}{hint}")


def _because(spot: _Spot, root: Node, place: str) -> str:
    """Names the other layer when it is a fault only because of the kind that was chosen there."""
    choice = spot.choice
    node = find(root, choice.path) if choice else None
    if choice is None or node is None or _layer(node.where) == _layer(place) or not _depends(spot, choice):
        return ""
    return f" ({choice.path[-1]} {choice.tag} is set at {node.where})"


def _depends(spot: _Spot, choice: _Choice) -> bool:
    """True if the siblings of the chosen kind do not all say the same about the field."""
    name = str(spot.path[len(choice.path) - 1])
    fields = [kind.type.model_fields.get(name) for kind in choice.siblings]
    return len({words(of_field(field)) if field else "" for field in fields}) > 1


def _layer(where: str) -> str:
    return re.sub(r":\d+:\d+$", "", where)


def _place(root: Node, path: Path) -> str:
    """Where `path`, or the innermost section around it that was written at all, stands."""
    while (node := find(root, path)) is None:
        path = path[:-1]
    return node.where


def _shown(node: Node | None) -> str:
    text = json.dumps(plain(node, for_people=True) if node else None, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."


def _all_tags(choices: list[Kind], tag_key: str) -> list[str]:
    return [tag for kind in choices for tag in tags(kind, tag_key)]


# --- from the library's location to the spec ------------------------------------------------------------------------


def _locate(location: tuple[str | int, ...]) -> _Spot:
    """Follows an error's location through the spec; it names the chosen kinds of sections as extra steps."""
    section: type[Section] = JobSpec
    path: Path = ()
    choice: _Choice | None = None
    steps = iter(location)
    for step in steps:
        path = (*path, step)
        field = section.model_fields.get(str(step))
        due = of_field(field) if field else []
        tag_key = field.discriminator if field and isinstance(field.discriminator, str) else None
        if tag_key is not None:
            tag = next(steps, None)
            if tag is None:
                return _Spot(path, due, section, choice, tag_key)
            chosen = next(kind for kind in due if tag in tags(kind, tag_key))
            section, choice = chosen.type, _Choice((*path, tag_key), str(tag), due)
        elif len(due) == 1 and is_section(due[0]):
            section, choice = due[0].type, None
        else:
            return _inside(_Spot(path, due, section, choice), tuple(steps))
    return _Spot(path, [Kind(section)], section, choice)


def _inside(spot: _Spot, steps: tuple[str | int, ...]) -> _Spot:
    """Goes on into list items and mapping values, as long as the type has one branch (besides null)."""
    path, due = spot.path, spot.due
    for step in steps:
        branches = [kind for kind in due if kind.type is not type(None)]
        arguments = get_args(branches[0].type) if len(branches) == 1 else ()
        if not arguments:
            break
        path, due = (*path, step), kinds(arguments[-1] if isinstance(step, str) else arguments[0])
    return _Spot(path, due, spot.section, spot.choice)
