"""Layers, types and faults: what a whole job looks like, and the words a user reads when it is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchinfer
from batchinfer.errors import SpecError
from batchinfer.job import Override, load, load_job
from batchinfer.job.document import dump
from batchinfer.job.source_spec import JsonlSource, ParquetSource
from batchinfer.job.spec import DirectRun, ParquetSink


def flags(*arguments: str) -> list[Override]:
    return [Override.from_flag(argument) for argument in arguments]


def test_a_four_line_job_is_complete(job):
    spec = job().spec
    assert (
        isinstance(spec.source, JsonlSource) and isinstance(spec.sink, ParquetSink) and isinstance(spec.run, DirectRun)
    )
    assert spec.output_path == "out/demo"
    assert spec.batching.max_tokens == 16384


def test_sections_of_several_kinds_have_a_default_kind(job):
    spec = job("sink: {path: there}\nrun: {seed: 3}\n").spec
    assert (spec.sink.format, spec.sink.path, spec.run.runner, spec.run.seed) == ("parquet", "there", "direct", 3)


def test_precedence_is_defaults_file_overlays_in_order_flags(job, write):
    write("a.py", "def get_config(): return {'batching': {'max_tokens': 2, 'max_rows': 2, 'window_rows': 2}}")
    write("b.py", "def get_config(): return {'batching': {'max_rows': 3, 'window_rows': 3}}")
    loaded = job(
        "batching: {max_tokens: 1, max_rows: 1, window_rows: 1}\nerrors: {retries: 1}\n",
        flags("--config.batching.window_rows=4"),
        overlays=["a.py", "b.py"],
    )
    batching = loaded.spec.batching
    assert (batching.max_tokens, batching.max_rows, batching.window_rows, batching.buckets) == (2, 3, 4, None)
    assert (loaded.spec.errors.retries, loaded.spec.errors.min_rows) == (1, 1000)
    assert {field: where for field, where in loaded.origins.items() if field.startswith(("batching", "errors"))} == {
        "batching.max_tokens": "a.py",
        "batching.max_rows": "b.py",
        "batching.window_rows": "--config.batching.window_rows",
        "errors.retries": "job.yaml:6:19",
    }


def test_lists_are_replaced_and_mappings_merged(job, write):
    write("a.py", "def get_config(): return {'sink': {'include': ['z']}, 'run': {'beam_options': {'b': 2}}}")
    spec = job("sink: {include: [x, y]}\nrun: {beam_options: {a: 1}}\n", overlays=["a.py"]).spec
    assert spec.sink.include == ("z",)
    assert spec.run.beam_options == {"a": 1, "b": 2}


def test_load_job_gives_the_spec_alone(write, minimal):
    assert load_job(write("job.yaml", minimal)) == load("job.yaml").spec


def test_every_fault_of_every_layer_is_reported_at_once(faults, write):
    write("site.py", "def get_config(): return {'errors': {'max_rat': 0.5}}")
    lines = faults(
        "name: demo\n"
        "source: {format: jsonl, path: in.jsonl, limit: -5}\n"
        "task: {kind: embed, pooling: men, max_length: ${params.n}}\n".replace("${params.n}", '"${params.n}"')
        + "batching:\n  rows: 3\n  max_rows: many\nlimit: 3\n",
        flags("--config.batching.max_tokens=lots", "--config.run.sed=1"),
        overlays=["site.py"],
    )
    assert sorted(lines) == sorted(
        [
            "job.yaml:2:48: source.limit: should be a positive whole number or null, got -5",
            'job.yaml:3:30: task.pooling: should be one of mean, cls, max or null, got "men"',
            "job.yaml:3:47: task.max_length: ${params.n} is not defined; defined are ${date} and ${env.NAME}",
            "job.yaml: model: missing: should be a section (lines of `key: value`)",
            'job.yaml:6:13: batching.max_rows: should be a positive whole number or null, got "many"',
            "job.yaml:5:3: batching.rows: unknown key (did you mean max_rows?)",
            "job.yaml:7:1: limit: unknown key (did you mean source.limit?)",
            '--config.batching.max_tokens: should be a positive whole number, got "lots"',
            "--config.run.sed: unknown key (did you mean seed?)",
            "site.py: errors.max_rat: unknown key (did you mean max_rate?)",
        ]
    )


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            'batching: {max_rows: "many"}',
            'job.yaml:5:22: batching.max_rows: should be a positive whole number or null, got "many"',
        ),
        ("batching: {max_tokens: -1}", "job.yaml:5:24: batching.max_tokens: should be a positive whole number, got -1"),
        (
            "batching: {max_tokens: 64.0}",
            "job.yaml:5:24: batching.max_tokens: should be a positive whole number, got 64.0",
        ),
        (
            "batching: {buckets: [8, -1]}",
            "job.yaml:5:25: batching.buckets[1]: should be a positive whole number, got -1",
        ),
        (
            "batching: {buckets: []}",
            "job.yaml:5:21: batching.buckets: should be a list with at least one item, each item a positive",
        ),
        ("batching:", "job.yaml:5:1: batching: should be a section (lines of `key: value`), got null"),
        (
            "errors: {max_rate: 2}",
            "job.yaml:5:20: errors.max_rate: should be a number, at least 0 and at most 1, got 2",
        ),
        (
            "errors: {retries: true}",
            "job.yaml:5:19: errors.retries: should be a whole number, at least 0 and at most 100, got true",
        ),
        (
            "errors: {max_rate: .nan}",
            "job.yaml:5:20: errors.max_rate: should be a number, at least 0 and at most 1, got NaN",
        ),
        (
            "sink: {format: parqet}",
            'job.yaml:5:16: sink.format: should be one of parquet, jsonl, tfrecord, got "parqet" (did you mean parquet?)',
        ),
        ("sink: out/x", 'job.yaml:5:7: sink: should be a section (lines of `key: value`), got "out/x"'),
        ("sink: {include: x}", 'job.yaml:5:17: sink.include: should be a list, each item text (not empty), got "x"'),
        (
            "sink: {format: jsonl, row_group_rows: 3}",
            "job.yaml:5:23: sink.row_group_rows: no key of format jsonl, but of parquet",
        ),
        (
            "run: {runner: direct, beam_options: {x: [1]}}",
            "job.yaml:5:41: run.beam_options.x: should be text or a whole number or",
        ),
        ("version: 2", "job.yaml:5:10: version: should be 1, got 2"),
        ("params: 3", "job.yaml:5:9: params: should be a mapping, each value text or"),
        ('params: {x: "\\ud800"}', "job.yaml:5:13: params.x: is not valid Unicode text"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(faults, minimal, more, line):
    [told] = faults(minimal + more + "\n")
    assert told.startswith(line)


def test_missing_parts_are_named_with_what_they_should_be(faults):
    assert faults("source: {path: x}\ntask: {kind: custom}\n") == [
        "job.yaml: name: missing: should be letters, digits, dots, dashes or underscores, a letter or digit first, at most 100",
        "job.yaml:1:9: source.format: missing: should be one of jsonl, text, csv, tsv, parquet, arrow, feather, avro, tfrecord",
        'job.yaml:2:7: task.module: missing: should be written "package.module:name"',
        "job.yaml: model: missing: should be a section (lines of `key: value`)",
    ]
    assert "job.yaml: task: missing: should be a section with kind: embed, classify, score_pair, custom" in faults(
        "name: x"
    )


def test_a_value_with_two_possible_types_is_one_fault(faults, minimal):
    assert faults(minimal.replace("in.jsonl", "[a, 3]")) == [
        (
            "job.yaml:2:31: source.path: should be text (not empty) or a list with at least one item, "
            'each item text (not empty), got ["a", 3]'
        )
    ]


def test_another_kind_takes_the_fields_it_knows_and_refuses_the_rest(job, faults, minimal):
    source = "source: {format: jsonl, path: in.jsonl, key: id"
    text = minimal.replace("source: {format: jsonl, path: in.jsonl", source)
    to_parquet = flags("--config.source.format=parquet")
    assert faults(text.replace("key: id", "key: id, max_line_bytes: 9"), to_parquet) == [
        (
            "job.yaml:2:50: source.max_line_bytes: no key of format parquet, but of jsonl, text, csv, tsv "
            "(format parquet is set at --config.source.format)"
        )
    ]
    loaded = job("", [*to_parquet, Override("source.key", "id")])
    assert loaded.spec.source == ParquetSource(format="parquet", path="in.jsonl", key="id")


def test_compression_comes_along_to_another_sink_if_that_knows_it(job, faults, minimal):
    to_jsonl = flags("--config.sink.format=jsonl")
    assert job("sink: {format: parquet, compression: zstd}\n", to_jsonl).spec.sink.compression == "zstd"
    assert faults(minimal + "sink: {format: parquet, compression: snappy}\n", to_jsonl) == [
        (
            'job.yaml:5:38: sink.compression: should be one of none, gzip, zstd, got "snappy" '
            "(format jsonl is set at --config.sink.format)"
        )
    ]


def test_a_broken_file_does_not_hide_a_broken_overlay_or_flag(faults, write):
    write("site.py", "raise ValueError('no')")
    assert faults("a: [", flags("--config.=3", "--config.batching={a"), overlays=["site.py", "none.py"]) == [
        "job.yaml:1:5: is not YAML: expected the node content, but found '<stream end>'",
        "site.py:1: ValueError: no",
        "none.py: there is no such overlay",
        "--config.: should name a field: --config.batching.max_rows=64",
        "--config.batching: is not YAML: expected ',' or '}', but got '<stream end>'",
    ]


def test_long_values_are_cut_in_messages(faults, minimal):
    [line] = faults(minimal + f"batching: {{max_rows: {'x' * 500}}}\n")
    assert line.endswith("xxx...") and len(line) < 200


def test_loading_imports_nothing_heavy():
    code = (
        "import sys, types; room = types.ModuleType('batchinfer'); room.__path__ = [sys.argv[1]];"
        "sys.modules['batchinfer'] = room; import batchinfer.job;"  # the room alone, without the package's own imports
        "print([m for m in sys.argv[2:] if m in sys.modules])"
    )
    heavy = ["jax", "flax", "numpy", "pyarrow", "apache_beam", "ml_collections", "absl"]
    package = str(Path(batchinfer.__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, package, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_error_means_a_bad_job(write):
    with pytest.raises(SpecError) as caught:
        load("missing.yaml")
    assert caught.value.exit_code == 2
    assert [fault.where for fault in caught.value.faults] == ["missing.yaml"]


FIELDS = ("name", "source", "task", "model", "batching", "sink", "errors", "run", "params", "format", "kind", "runner")
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["jsonl", "embed", "beam", "${date}", "${x}", ""]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from([*FIELDS, "path", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=8))
def test_whatever_a_file_holds_it_loads_or_is_refused_with_places(write, content):
    path = write("job.yaml", dump(content))
    try:
        load(path, env={})
    except SpecError as error:
        assert all(fault.where.startswith("job.yaml") and fault.message for fault in error.faults)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 140), st.text(max_size=3) | st.sampled_from(["\t", "&", "*", "{", "[", "!!", "? ", "- ", "---\n"])
)
def test_a_typo_anywhere_never_gives_a_traceback(write, minimal, place, typo):
    path = write("job.yaml", (minimal[:place] + typo + minimal[place:]).encode("utf-8", "replace"))
    try:
        load(path, env={})
    except SpecError as error:
        assert all(fault.where.startswith("job.yaml") and fault.message for fault in error.faults)
