"""The JSON Schema accepts what loads, refuses what does not, and says what every field means."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from batchinfer.job import json_schema
from batchinfer.job.document import read_document
from batchinfer.job.tree import plain

JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*.yaml"))
TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}


def accepts(schema: Any, value: Any, defs: dict[str, Any]) -> bool:
    """As much of JSON Schema as ours uses; an unknown keyword fails the test rather than pass unseen."""
    if schema is True:
        return True
    checks = {
        "$ref": lambda ref: accepts(defs[ref.removeprefix("#/$defs/")], value, defs),
        "type": lambda name: isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool)),
        "enum": lambda choices: value in choices,
        "const": lambda only: value == only,
        "pattern": lambda pattern: re.search(pattern, value) is not None,
        "minLength": lambda n: len(value) >= n,
        "maxLength": lambda n: len(value) <= n,
        "minItems": lambda n: len(value) >= n,
        "minimum": lambda n: value >= n,
        "maximum": lambda n: value <= n,
        "exclusiveMinimum": lambda n: value > n,
        "items": lambda item: all(accepts(item, one, defs) for one in value),
        "anyOf": lambda options: any(accepts(one, value, defs) for one in options),
        "oneOf": lambda options: sum(accepts(one, value, defs) for one in options) == 1,
        "required": lambda names: set(names) <= set(value),
        "properties": lambda known: all(
            accepts(one, value[name], defs) for name, one in known.items() if name in value
        ),
        "additionalProperties": lambda more: all(
            accepts(more, one, defs) if more else False
            for name, one in value.items()
            if name not in schema.get("properties", {})
        ),
    }
    notes = {"title", "description", "default", "discriminator", "$schema", "$defs"}
    keywords = sorted(set(schema) - notes, key=lambda word: word != "type")  # the type first: it guards the others
    return all(checks[word](schema[word]) for word in keywords)


def valid(job: Any) -> bool:
    schema = json_schema()
    return accepts(schema, job, schema["$defs"])


def test_it_is_closed_and_describes_every_field():
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "batchinfer job"
    json.dumps(schema)
    sections = [schema, *(one for one in schema["$defs"].values() if "properties" in one)]
    assert all(section["additionalProperties"] is False for section in sections)
    silent = [name for section in sections for name, one in section["properties"].items() if "description" not in one]
    assert set(silent) <= {"format", "kind", "runner"}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_the_jobs_that_are_shipped_are_valid(path):
    assert valid(plain(read_document(str(path))))


BASE = {
    "name": "x",
    "source": {"format": "jsonl", "path": "a"},
    "task": {"kind": "embed"},
    "model": {"checkpoint": "c"},
}


@pytest.mark.parametrize(
    ("change", "fine"),
    [
        ({}, True),
        ({"sink": {"path": "out"}, "run": {"seed": 1}}, True),
        ({"source": {"format": "tsv", "path": ["a", "b"], "limit": None}}, True),
        ({"batching": {"max_rows": "${params.n}", "buckets": ["${params.n}", 8]}, "params": {"n": 3}}, True),
        ({"sink": {"format": "jsonl", "compression": "${params.c}"}}, True),
        ({"name": "daily-${date}"}, True),
        ({"batching": {"max_rows": "many"}}, False),
        ({"batching": {"rows": 3}}, False),
        ({"batching": {"max_tokens": 0}}, False),
        ({"source": {"format": "jsnl", "path": "a"}}, False),
        ({"source": {"format": "parquet", "path": "a", "delimiter": ","}}, False),
        ({"model": None}, False),
        ({"limit": 3}, False),
    ],
)
def test_it_draws_the_line_where_loading_does(change, fine):
    assert valid({**BASE, **change}) is fine
