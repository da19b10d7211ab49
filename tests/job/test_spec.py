"""Rules between fields, each with its message at the field that breaks it."""

from __future__ import annotations

import pytest

from batchinfer.job import load

CLASSIFY = "task: {kind: classify, "


@pytest.mark.parametrize(
    ("task", "more", "line"),
    [
        ("", "batching: {buckets: [16, 8]}", "job.yaml:5:21: batching.buckets: should ascend, got [16, 8]"),
        ("", "batching: {buckets: [8, 8]}", "job.yaml:5:21: batching.buckets: should ascend, got [8, 8]"),
        (
            "",
            "batching: {max_tokens: 64, buckets: [128]}",
            "job.yaml:5:37: batching.buckets: a row of 128 tokens does not fit a batch of max_tokens 64",
        ),
        ("", "sink: {include: [a, a]}", 'job.yaml:5:17: sink.include: names "a" twice'),
        ("", "run: {beam_options: {runner: X}}", "job.yaml:5:21: run.beam_options: names a Beam runner: that needs"),
        ("", "run: {runner: beam, beam_options: {x: 1}}", "job.yaml:5:35: run.beam_options: should name a runner"),
        (CLASSIFY + "labels: [a], top_k: 2}", "", "job.yaml:3:44: task.top_k: is 2, but there are 1 labels"),
        (
            CLASSIFY + "threshold: 0.7}",
            "",
            "job.yaml:3:35: task.threshold: means something only with multi_label: true",
        ),
        (
            CLASSIFY + "multi_label: true, threshold: 7}",
            "",
            "job.yaml:3:54: task.threshold: should be a number, at least 0 and at most 1 or a mapping, each value a number",
        ),
        (
            CLASSIFY + "multi_label: true, labels: [a], threshold: {b: 0.5}}",
            "",
            "job.yaml:3:67: task.threshold: is given for what is not among labels: b",
        ),
    ],
)
def test_fields_that_do_not_go_together(faults, minimal, task, more, line):
    text = minimal.replace("task: {kind: embed}", task) if task else minimal
    [told] = faults(f"{text}{more}\n")
    assert told.startswith(line)


def test_a_model_is_a_checkpoint_or_a_module(faults, minimal):
    text = minimal.replace("{checkpoint: ckpt}", "{dtype: auto}")
    assert faults(text) == ["job.yaml:4:8: model: needs checkpoint or module (or both)"]
    assert faults(minimal.replace("ckpt", "ckpt, kwargs: {a: 1}")) == [
        "job.yaml:4:8: model: kwargs are arguments of module, but there is no module"
    ]


def test_a_csv_delimiter_is_not_its_quote(faults, minimal):
    text = minimal.replace("format: jsonl,", "format: csv, delimiter: ';', quote: ';',")
    assert faults(text) == ["job.yaml:2:46: source.quote: should differ from delimiter"]


def test_thresholds_for_some_labels_are_fine(write, minimal):
    text = minimal.replace(
        "task: {kind: embed}", "task: {kind: classify, multi_label: true, threshold: {1: 0.2, b: 1}}"
    )
    assert load(write("job.yaml", text)).spec.task.threshold == {"1": 0.2, "b": 1.0}
