"""The JSON Schema of a job file, for editors. Made from the spec: nothing is written down twice."""

from __future__ import annotations

from typing import Any

from batchinfer.job.fields import tagged_fields
from batchinfer.job.spec import JobSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = {"type": "string", "pattern": r"\$\{.*\}", "description": "${date}, ${params.x} or ${env.X}"}


def json_schema() -> dict[str, Any]:
    """Draft 2020-12; unknown keys are errors. Where a number or a choice is due, `${params.x}` may stand too."""
    schema = JobSpec.model_json_schema()
    tag_keys = {tag_key for _, tag_key, _ in tagged_fields(JobSpec)}
    defs = {name: _open(section, tag_keys) for name, section in schema.pop("$defs").items()}
    schema = _open(schema, tag_keys)
    text = {"title": "batchinfer job", "description": "What to run: source, task, model and where predictions go."}
    return {"$schema": DIALECT, **schema, **text, "$defs": {**defs, "Reference": _REFERENCE}}


def _open(schema: dict[str, Any], fixed: set[str]) -> dict[str, Any]:
    """`schema` with references allowed wherever a value is narrower than text; keys in `fixed` stay as they are."""
    opened = dict(schema)
    if "properties" in schema:
        properties = schema["properties"].items()
        opened["properties"] = {name: one if name in fixed else _open(one, fixed) for name, one in properties}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            opened[key] = _open(schema[key], fixed)
    if "anyOf" in schema:
        opened["anyOf"] = [_open(one, fixed) for one in schema["anyOf"]]
    narrow = schema.get("type") in ("integer", "number", "boolean") or "enum" in schema or "pattern" in schema
    if not narrow:
        return opened
    about = {key: opened.pop(key) for key in ("title", "description", "default") if key in opened}
    return {**about, "anyOf": [opened, {"$ref": "#/$defs/Reference"}]}
