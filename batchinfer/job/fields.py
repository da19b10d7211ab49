"""The spec as a tree of types: what may stand where, and what that is called in plain words.

Reads the annotations of spec.py, so nothing is written down twice. Knows nothing of values or of where they came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import StringConstraints
from pydantic.fields import FieldInfo

from batchinfer.job.section import Section, Words
from batchinfer.job.spec import JobSpec
from batchinfer.job.tree import Path


@dataclass(frozen=True, slots=True)
class Kind:
    """One branch of a type: the type without its union and `Annotated`, and the constraints it came with."""

    type: Any
    constraints: tuple[Any, ...] = ()


def kinds(annotation: Any, constraints: Sequence[Any] = ()) -> list[Kind]:
    """The branches of a type; constraints around a union hold for each."""
    match get_origin(annotation):
        case origin if origin is Annotated:
            inner = [part for one in annotation.__metadata__ for part in _parts(one)]
            return kinds(annotation.__origin__, (*inner, *constraints))
        case origin if origin in (Union, UnionType):
            return [kind for branch in get_args(annotation) for kind in kinds(branch, constraints)]
        case _:
            return [Kind(annotation, tuple(constraints))]


def _parts(constraint: Any) -> Sequence[Any]:
    return constraint.metadata if isinstance(constraint, FieldInfo) else (constraint,)


def of_field(field: FieldInfo) -> list[Kind]:
    return kinds(field.annotation, field.metadata)


def is_section(kind: Kind) -> bool:
    return isinstance(kind.type, type) and issubclass(kind.type, Section)


def kinds_at(path: Path) -> list[Kind]:
    """What a value at `path` may be, in whichever kind of source, task, ...; [] for a path no job has."""
    found = [Kind(JobSpec)]
    for step in path:
        found = [below for kind in found for below in _below(kind, step)]
    return found


def _below(kind: Kind, step: str | int) -> list[Kind]:
    if is_section(kind):
        field = kind.type.model_fields.get(step)
        return of_field(field) if field else []
    match get_origin(kind.type):
        case origin if origin is dict:
            return kinds(get_args(kind.type)[1])
        case origin if origin is tuple:
            return kinds(get_args(kind.type)[0])
        case _:
            return [kind] if kind.type is Any else []


def reads_text(choices: Sequence[Kind]) -> bool:
    """True where text stands for itself and is never a number, true, false or a mapping."""
    singles = [kind for kind in choices if get_origin(kind.type) is not tuple and kind.type is not NoneType]
    return bool(singles) and all(_is_text(kind) for kind in singles)


def _is_text(kind: Kind) -> bool:
    if get_origin(kind.type) is Literal:
        return all(isinstance(choice, str) for choice in get_args(kind.type))
    return kind.type is str


# --- sections of several kinds --------------------------------------------------------------------------------------


def tagged_fields(section: type[Section]) -> Iterator[tuple[str, str, FieldInfo]]:
    """The fields of a section that choose among kinds: name, the key that chooses, the field."""
    for name, field in section.model_fields.items():
        if isinstance(field.discriminator, str):
            yield name, field.discriminator, field


def tags(kind: Kind, tag_key: str) -> tuple[str, ...]:
    """The values of `tag_key` that choose this kind: ("csv", "tsv")."""
    return get_args(kind.type.model_fields[tag_key].annotation)


def default_tag(field: FieldInfo, tag_key: str) -> str | None:
    """The tag of the kind a section has when it names none, None if it must name one."""
    for kind in of_field(field):
        tag_field = kind.type.model_fields[tag_key]
        if not tag_field.is_required():
            return tag_field.default
    return None


def keys_everywhere() -> dict[str, str]:
    """Every key below a section of the job, to its dotted path: {"max_rows": "batching.max_rows", ...}."""
    found: dict[str, str] = {}
    for name, field in JobSpec.model_fields.items():
        for kind in filter(is_section, of_field(field)):
            for key in kind.type.model_fields:
                found.setdefault(key, f"{name}.{key}")
    return found


# --- words ----------------------------------------------------------------------------------------------------------


def words(choices: Iterable[Kind]) -> str:
    """What may stand in a field: `a positive whole number or null`."""
    return " or ".join(dict.fromkeys(_words(kind) for kind in choices))


def _words(kind: Kind) -> str:
    for constraint in kind.constraints:
        if isinstance(constraint, Words) and kind.type is not NoneType:
            return constraint.text
    match kind.type:
        case t if t is int:
            return _number("whole number", kind.constraints)
        case t if t is float:
            return _number("number", kind.constraints)
        case t if t is str:
            return _text(kind.constraints)
        case t if t is bool:
            return "true or false"
        case t if t is NoneType:
            return "null"
        case t if t is Any:
            return "anything"
        case _ if is_section(kind):
            return "a section (lines of `key: value`)"
        case _:
            return _compound(kind)


def _compound(kind: Kind) -> str:
    match get_origin(kind.type), get_args(kind.type):
        case origin, (item, *_) if origin is tuple:
            some = "a list with at least one item" if _longer_than_empty(kind.constraints) else "a list"
            return f"{some}, each item {words(kinds(item))}"
        case origin, (_, item) if origin is dict:
            return f"a mapping, each value {words(kinds(item))}"
        case origin, choices if origin is Literal:
            return str(choices[0]) if len(choices) == 1 else f"one of {', '.join(map(str, choices))}"
    raise TypeError(f"a field of type {kind.type} has no words")


def _longer_than_empty(constraints: Sequence[Any]) -> bool:
    return any(isinstance(one, MinLen) and one.min_length > 0 for one in constraints)


def _text(constraints: Sequence[Any]) -> str:
    for one in constraints:
        if isinstance(one, StringConstraints) and one.min_length:
            return "a single character" if one.max_length == 1 else "text (not empty)"
    return "text"


def _number(noun: str, constraints: Sequence[Any]) -> str:
    low_limit = high_limit = ""
    for one in constraints:
        match one:
            case Gt(gt=0):
                noun = f"positive {noun}"
            case Gt(gt=low):
                low_limit = f"above {low}"
            case Ge(ge=low):
                low_limit = f"at least {low}"
            case Lt(lt=high):
                high_limit = f"below {high}"
            case Le(le=high):
                high_limit = f"at most {high}"
    limits = " and ".join(filter(None, (low_limit, high_limit)))
    return f"a {noun}, {limits}" if limits else f"a {noun}"
