"""A resolved job written out: every field, defaults too, as YAML that loads to the same job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchinfer.job.document import dump
from batchinfer.job.fields import tagged_fields
from batchinfer.job.params import escape
from batchinfer.job.spec import JobSpec
from batchinfer.job.tree import Path, dotted


def describe(spec: JobSpec, env_fields: Mapping[str, str] | None = None) -> str:
    """The whole job as YAML. `env_fields` (of LoadedJob) names the values to write as ${env.X}: they may be secrets."""
    values = spec.model_dump()
    for name, tag_key, _ in tagged_fields(JobSpec):  # what kind it is stands first
        values[name] = {tag_key: values[name].pop(tag_key), **values[name]}
    return dump(_written(values, (), env_fields or {}))


def _written(value: Any, path: Path, env_fields: Mapping[str, str]) -> Any:
    shown = env_fields.get(dotted(path))
    if shown is not None:
        return shown
    match value:
        case dict():
            return {key: _written(entry, (*path, key), env_fields) for key, entry in value.items()}
        case list() | tuple():
            return [_written(item, (*path, i), env_fields) for i, item in enumerate(value)]
        case str():
            return escape(value)
        case _:
            return value
