"""${date}, ${params.x}, ${env.X}: what they become, where they are refused, and what of them may be shown."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.job import Override
from batchinfer.job.params import Substitution, escape
from batchinfer.job.tree import Node

DAY = date(2026, 3, 1)


def path_of(job, text: str, **options) -> str:
    return job("", [Override("source.path", text)], date=DAY, **options).spec.source.path


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("in/${date}.jsonl", "in/2026-03-01.jsonl"),
        ("${date}", "2026-03-01"),
        ("${date-1d}", "2026-02-28"),
        ("${date+31d}", "2026-04-01"),
        ("$${date}", "${date}"),
        ("a$$${date}", "a$${date}"),
        ("{{ column }} ${{ column }} $5", "{{ column }} ${{ column }} $5"),
        ("s3://${env.BUCKET}/${date}", "s3://b/2026-03-01"),
    ],
)
def test_references_are_replaced(job, text, meaning):
    assert path_of(job, text, env={"BUCKET": "b"}) == meaning


def test_a_lone_param_keeps_its_type_and_goes_into_text_as_yaml(job):
    more = 'params: {n: 3, on: true, name: x, folder: "in/${params.name}"}\n'
    wanted = [
        Override("source.limit", "${params.n}"),
        Override("task.truncate", "${params.on}"),
        Override("source.path", "${params.folder}/${params.n}-${params.on}"),
        Override("batching.buckets", "[${params.n}, 9]"),
    ]
    spec = job(more, wanted).spec
    assert (spec.source.limit, spec.task.truncate, spec.source.path) == (3, True, "in/x/3-true")
    assert spec.batching.buckets == (3, 9)
    assert spec.params["folder"] == "in/x"


def test_param_flags_beat_every_layer_and_are_typed_as_yaml(job):
    loaded = job('params: {n: 3}\nbatching: {max_rows: "${params.n}"}\n', [Override("params.n", 4)], params={"n": "5"})
    assert loaded.spec.batching.max_rows == 5
    assert loaded.origins["params.n"] == "--param n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "${params.dya}",
            "${params.dya} is not defined (did you mean params.day?); defined are ${date}, ${params.day}, ${params.none} and ${env.NAME}",
        ),
        ("${model}", "${model} is not defined; defined are ${date}, ${params.day}"),
        ("${}", "${} is not defined"),
        ("${env.NOPE}", "${env.NOPE}: the environment variable NOPE is not set"),
        ("x/${date", '"${date" has no closing brace; for a plain "${" write "$${"'),
        ("${date+999999d}", "${date+999999d} is outside the calendar"),
        ("x-${params.none}", "${params.none} has no value yet: set it with --param none=..."),
    ],
)
def test_an_undefined_name_is_a_fault_where_it_stands(faults, minimal, text, line):
    text = minimal.replace("path: in.jsonl", f'path: "{text}"') + "params: {day: monday, none: null}\n"
    [told] = faults(text, date=date(9999, 1, 1))
    assert told.startswith("job.yaml:2:31: source.path: " + line)


def test_a_fault_in_a_param_is_told_once(faults, minimal):
    assert faults(minimal + 'params: {a: "${params.b}", b: "${params.a}"}\nsink: {path: "${params.a}"}\n') == [
        "job.yaml:5:31: params.b: params refer to each other in a circle: a -> b -> a"
    ]
    [told] = faults(minimal + 'params: {a: "${env.A}"}\nbatching: {max_rows: "${params.a}"}\n')
    assert told == "job.yaml:5:13: params.a: ${env.A}: the environment variable A is not set"


def test_an_undeclared_param_is_a_fault(faults, minimal):
    assert faults(minimal + "params: {day: x}\n", params={"dya": "1"}) == [
        "--param dya: the job's params have no such name (did you mean day?)"
    ]
    assert faults(minimal, params={"q": "1"}) == [
        "--param q: the job's params have no such name; the job declares none"
    ]


def test_text_of_the_environment_is_typed_by_the_field(job):
    more = 'params: {k: "${env.N}"}\nbatching: {max_rows: "${env.N}", window_rows: "${params.k}"}\nsink: {path: "${params.k}"}\n'
    spec = job(more, env={"N": "12"}).spec
    assert (spec.batching.max_rows, spec.batching.window_rows, spec.sink.path, spec.params["k"]) == (12, 12, "12", "12")


def test_values_from_the_environment_are_remembered_and_never_shown(job, faults, minimal):
    more = 'params: {key: "${env.KEY}"}\nsink: {path: "out/$${x}/${params.key}/${date}"}\n'
    loaded = job(more, date=DAY, env={"KEY": "hunter2"})
    assert loaded.spec.sink.path == "out/${x}/hunter2/2026-03-01"
    assert loaded.env_fields == {"params.key": "${env.KEY}", "sink.path": "out/$${x}/${env.KEY}/2026-03-01"}
    [told] = faults(minimal + 'batching: {max_rows: "${env.KEY}"}\n', env={"KEY": "hunter2"})
    assert told.endswith('got "${env.KEY}"')


@given(st.text(alphabet="a${} .date"))
def test_escaped_text_comes_back(text):
    values = Substitution({}, DAY, {})
    assert values.apply(Node(escape(text), "x")).value == text
    assert values.faults == []
