"""Flags: their text means what the field's type says."""

from __future__ import annotations

import pytest

from batchinfer.job import Override


def flag(argument: str) -> Override:
    return Override.from_flag(argument)


@pytest.mark.parametrize(
    ("argument", "meaning"),
    [
        ("--config.batching.max_rows=64", 64),
        ("--config.batching.max_rows=null", None),
        ("--config.batching.buckets=[16, 32]", (16, 32)),
        ("--config.batching.buckets=16,32", (16, 32)),
        ("--config.batching.buckets=16", (16,)),
        ("--config.errors.max_rate=1", 1.0),
        ("--config.errors.max_rate=1e-3", 0.001),
        ("--config.task.normalize=false", False),
        ("--config.task.truncate", True),
        ("--config.task.text=1", "1"),
        ("--config.task.text=true", "true"),
        ("--config.task.text=a=b: c", "a=b: c"),
        ("--config.task.pooling=cls", "cls"),
        ("--config.source.path=a,b", "a,b"),
        ("--config.source.path=[a, b]", ("a", "b")),
        ('--config.source.path=["a,b", c]', ("a,b", "c")),
        ("--config.source.path=x[0-9].jsonl", "x[0-9].jsonl"),
        ("--config.source.columns=1,2", ("1", "2")),
        ("--config.sink.include=", ()),
        ("--config.sink.include=[]", ()),
        ("--config.sink.compression=none", "none"),
        ("--config.run.beam_options.x=1", 1),
        ("--config.run.beam_options.x=text", "text"),
        ("--config.run.beam_options.x='1'", "1"),
        ("--config.run.beam_options={x: 1, y: a}", {"x": 1, "y": "a"}),
        ("--config.model.mesh.data=2", 2),
    ],
)
def test_a_flag_is_typed_by_its_field(job, argument, meaning):
    override = flag(argument)
    value = job("", [override]).spec
    for step in override.field.split("."):
        value = value[step] if isinstance(value, dict) else getattr(value, step)
    assert value == meaning
    assert type(value) is type(meaning)


def test_fields_of_the_users_own_code_are_typed_as_yaml(job):
    wanted = [flag(f"--config.model.kwargs.{one}") for one in ("n=3", "s=text", "deep.list=[1, a]", "none=null")]
    spec = job("", [flag("--config.model.module=pkg.mod:build"), *wanted]).spec
    assert spec.model.kwargs == {"n": 3, "s": "text", "deep": {"list": [1, "a"]}, "none": None}


def test_flags_apply_in_order_and_a_mapping_replaces_its_section(job):
    assert job("", [flag("--config.errors.retries=1"), flag("--config.errors.retries=2")]).spec.errors.retries == 2
    swapped = [
        flag("--config.source.key=id"),
        flag("--config.source={format: csv, path: x.csv}"),
        flag("--config.source.limit=3"),
    ]
    source = job("", swapped).spec.source
    assert (source.format, source.path, source.key, source.limit) == ("csv", "x.csv", None, 3)


def test_python_values_are_taken_as_they_are(job):
    wanted = [Override("source.limit", 10), Override("sink.include", ("a", "b")), Override("source.sample", 0.5)]
    spec = job("", wanted).spec
    assert (spec.source.limit, spec.sink.include, spec.source.sample) == (10, ("a", "b"), 0.5)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (flag("--config.batching.rows=3"), "--config.batching.rows: unknown key (did you mean max_rows?)"),
        (
            flag("--config.batchin.max_rows=3"),
            "--config.batchin.max_rows: batchin: unknown key (did you mean batching?)",
        ),
        (flag("--config.limit=3"), "--config.limit: unknown key (did you mean source.limit?)"),
        (flag("--config.zzz=3"), "--config.zzz: unknown key"),
        (
            flag("--config.name.x=3"),
            "--config.name.x: name: should be letters, digits, dots, dashes or underscores, a letter",
        ),
        (flag("--config.task.normalize=yes"), '--config.task.normalize: should be true or false, got "yes"'),
        (
            flag("--config.batching.max_rows"),
            "--config.batching.max_rows: should be a positive whole number or null, got true",
        ),
        (flag("--config.task.text=null"), "--config.task.text: should be text (not empty), got null"),
        (flag("--config.source.format=jsnl"), "--config.source.format: should be one of jsonl, text, csv"),
        (
            flag("--config.batching.buckets=[1,x]"),
            '--config.batching.buckets: batching.buckets[1]: should be a positive whole number, got "x"',
        ),
        (flag("--config..a=3"), "--config..a: should name a field: --config.batching.max_rows=64"),
        (
            Override("source.limit", "many", "--limit"),
            '--limit: source.limit: should be a positive whole number or null, got "many"',
        ),
        (
            Override("model.kwargs", {"f": print}),
            "--config.model.kwargs: model.kwargs.f: a job holds text, numbers, true, false, null, lists and",
        ),
    ],
)
def test_a_wrong_flag_is_one_line(faults, minimal, override, line):
    [told] = faults(minimal, [override])
    assert told.startswith(line)
