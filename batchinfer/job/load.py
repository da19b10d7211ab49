"""A job from its layers: defaults < job file < overlays in order < flags, then params, then types.

Every fault of every layer is reported at once, where it was written. Nothing here runs a job or imports jax.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import date as Date
from functools import partial, reduce

from pydantic import ValidationError

from batchinfer.errors import Fault, SpecError
from batchinfer.job.document import parse_mapping, read_document, scalar
from batchinfer.job.explain import explain
from batchinfer.job.fields import default_tag, tagged_fields
from batchinfer.job.overlays import read_overlay
from batchinfer.job.overrides import Override, apply
from batchinfer.job.params import Substitution
from batchinfer.job.spec import JobSpec
from batchinfer.job.suggest import did_you_mean
from batchinfer.job.tree import Node, dotted, fault, leaves, merge, plain, put


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job and where it came from.

    `origins`: dotted field -> the place it was written; a field that is not in it has its default.
    `env_fields`: dotted field -> how to show it; its value came from the environment and may be a secret.
    """

    spec: JobSpec
    origins: Mapping[str, str]
    env_fields: Mapping[str, str]


def load_job(
    path: str | os.PathLike[str],
    overrides: Sequence[Override] = (),
    *,
    overlays: Sequence[str] = (),
    params: Mapping[str, str] | None = None,
    date: Date | None = None,
    env: Mapping[str, str] | None = None,
) -> JobSpec:
    """The job in the YAML file `path`; arguments and errors as for `load`."""
    return load(path, overrides, overlays=overlays, params=params, date=date, env=env).spec


def load(
    path: str | os.PathLike[str],
    overrides: Sequence[Override] = (),
    *,
    overlays: Sequence[str] = (),
    params: Mapping[str, str] | None = None,
    date: Date | None = None,
    env: Mapping[str, str] | None = None,
) -> LoadedJob:
    """The job in the YAML file `path`, with where each field came from.

    overrides: fields set last, in order. overlays: "configs/x.py[:argument]", in order.
    params: values for declared `params`, read as YAML scalars. date: `${date}`, default today (UTC).
    env: what `${env.X}` may read, default this process's environment.
    Raises SpecError with every fault.
    """
    root, faults = _merged(os.fspath(path), overlays, overrides)
    return _resolved(root, faults, params or {}, date, env)


def _resolved(
    root: Node | None,
    faults: list[Fault],
    params: Mapping[str, str],
    date: Date | None,
    env: Mapping[str, str] | None,
) -> LoadedJob:
    if root is None:
        raise SpecError(faults)
    root, more = _with_params(root, params)
    values = Substitution(
        _entries(root, "params"), date or datetime.now(UTC).date(), os.environ if env is None else env
    )
    root = values.apply(root)
    return _typed(root, [*faults, *more, *values.faults], values.unresolved)


def load_text(text: str, name: str, overrides: Sequence[Override] = ()) -> LoadedJob:
    """A job from YAML text, called `name` in messages; otherwise as `load`."""
    return _resolved(*apply(parse_mapping(text, name), overrides), {}, None, None)


def _merged(path: str, overlays: Sequence[str], overrides: Sequence[Override]) -> tuple[Node | None, list[Fault]]:
    """All layers as one tree, None if a file could not be read: then nothing sure can be said about the rest."""
    layers: list[Node] = []
    faults: list[Fault] = []
    readers: list[Callable[[], list[Node]]] = [lambda: [read_document(path)]]
    for read in readers + [partial(read_overlay, name) for name in overlays]:
        try:
            layers += read()
        except SpecError as error:
            faults += error.faults
    if faults:
        return None, faults + apply(Node({}, ""), overrides)[1]
    return apply(reduce(merge, layers), overrides)


def _with_params(root: Node, params: Mapping[str, str]) -> tuple[Node, list[Fault]]:
    faults = []
    declared = _entries(root, "params")
    for name, text in params.items():
        flag = f"--param {name}"
        if name in declared:
            root = put(root, ("params", name), Node(scalar(text), flag, flag))
        else:
            hint = did_you_mean(name, declared) or "; the job declares " + (", ".join(declared) or "none")
            faults.append(Fault(flag, "", f"the job's params have no such name{hint}"))
    return root, faults


def _entries(root: Node, section: str) -> dict[str, Node]:
    """What is written in a top-level section, {} if nothing is (or something that is no mapping)."""
    node = root.value.get(section) if isinstance(root.value, dict) else None
    return node.value if node and isinstance(node.value, dict) else {}


def _typed(root: Node, faults: list[Fault], unresolved: set[tuple[str, str]]) -> LoadedJob:
    written = list(leaves(root))
    broken = [fault(node.where, path, "is not valid Unicode text") for path, node in written if not _is_unicode(node)]
    if broken:
        raise SpecError(faults + broken)
    root = _with_default_tags(root)
    try:
        # By way of JSON: strict, yet a list of the file may become a tuple of the spec.
        spec = JobSpec.model_validate_json(json.dumps(plain(root)))
    except ValidationError as error:
        told = [one for one in explain(error, root) if (one.where, one.field) not in unresolved]
        raise SpecError(faults + told) from None
    if faults:
        raise SpecError(faults)
    return LoadedJob(
        spec,
        {dotted(path): node.where for path, node in written},
        {dotted(path): node.shown for path, node in written if node.shown is not None},
    )


def _is_unicode(node: Node) -> bool:
    return not isinstance(node.value, str) or not any("\ud800" <= char <= "\udfff" for char in node.value)


def _with_default_tags(root: Node) -> Node:
    """`sink: {path: out/x}` names no format: it gets the default one before its kind is looked for."""
    for name, tag_key, field in tagged_fields(JobSpec):
        section, tag = _entries(root, name), default_tag(field, tag_key)
        if section and tag is not None and tag_key not in section:
            where = section[next(iter(section))].where
            root = put(root, (name, tag_key), Node(tag, where, where))
    return root
