"""The resolved job, written out: it loads to itself and shows no secret."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchinfer.job import JobSpec, Override, describe, load

CUSTOM = Override("model.module", "pkg.mod:build")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts


def test_a_described_job_loads_to_the_same_job(job, write):
    more = "batching: {buckets: [8, 16]}\nsink: {format: jsonl, include: [a, b]}\n"
    spec = job(more, [Override("task.text", "1"), Override("source.path", "x$${date}")]).spec
    text = describe(spec)
    assert load(write("again.yaml", text)).spec == spec
    assert describe(load("again.yaml").spec) == text
    assert "max_tokens: 16384\n" in text and "  - 8\n" in text and 'text: "1"\n' in text
    assert text.index("format: jsonl") < text.index('path: "x$${date}"')


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kwargs=st.dictionaries(texts, values | st.lists(values, max_size=3), max_size=3))
def test_any_argument_of_the_users_code_survives(job, write, kwargs):
    spec = job("", [CUSTOM]).spec
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"kwargs": kwargs})})
    assert load(write("again.yaml", describe(spec))).spec == spec


def test_secrets_of_the_environment_are_written_as_references(job):
    more = 'sink: {path: "gs://${env.BUCKET}/x"}\nbatching: {max_rows: "${env.ROWS}"}\n'
    loaded = job(more, env={"BUCKET": "private", "ROWS": "77"})
    text = describe(loaded.spec, loaded.env_fields)
    assert "private" not in text and "77" not in text
    assert 'path: "gs://${env.BUCKET}/x"' in text and 'max_rows: "${env.ROWS}"' in text


def test_a_spec_survives_json(job):
    spec = job().spec
    assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
