"""The form of a job file: what YAML is accepted, and one clear line for each way it can be broken."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchinfer.errors import SpecError
from batchinfer.job.document import dump, parse_mapping, parse_value, read_document, scalar
from batchinfer.job.tree import find, plain


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.inf", -math.inf),
        ("2026-11-22", "2026-11-22"),
        ("12:30", "12:30"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text, meaning):
    assert scalar(text) == meaning
    assert type(scalar(text)) is type(meaning)


def test_quoted_scalars_are_text(write):
    assert plain(read_document(write("job.yaml", "a: '1'\nb: \"null\"\nc: |\n  2\n"))) == {
        "a": "1",
        "b": "null",
        "c": "2\n",
    }


def test_every_value_and_key_knows_its_line_and_column(write):
    root = read_document(write("job.yaml", "a: 1\nb:\n  - x\n  - {c: 2}\n"))
    assert find(root, ("a",)).where == "job.yaml:1:4"
    assert find(root, ("b", 0)).where == "job.yaml:3:5"
    assert find(root, ("b", 1, "c")).where == "job.yaml:4:9"
    assert find(root, ("b", 1, "c")).key_where == "job.yaml:4:6"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(write):
    assert plain(read_document(write("job.yaml", b"\xef\xbb\xbfa: 1\r\nb: 2\r\n"))) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "job.yaml: is empty: a job needs at least name, source, task and model"),
        ("# only a comment\n", "job.yaml: is empty: a job needs at least name, source, task and model"),
        ("- a\n- b\n", "job.yaml:1:1: a job is a mapping: lines of `key: value`"),
        ("just text\n", "job.yaml:1:1: a job is a mapping: lines of `key: value`"),
        ("a: 1\n---\nb: 2\n", "job.yaml:2:1: a second document starts here: one job per file"),
        ("a:\n\tb: 1\n", "job.yaml:2:1: a tab: YAML wants spaces here"),
        ("a: 'x\n", "job.yaml:2:1: is not YAML: found unexpected end of stream"),
        ("a: b: c\n", "job.yaml:1:5: is not YAML: mapping values are not allowed here"),
        (
            "a: {b: x/${date}}\n",
            'job.yaml:1:11: put quotes around a value with ${...} inside { } or [ ]: "data/${date}"',
        ),
        (b"a: 1\nb: \xff\n", "job.yaml:2: is not UTF-8 text"),
        (b"a: 1\nb: \x00\n", "job.yaml:2: the character U+0000 is not allowed in YAML"),
        (
            "a: !!python/object:os.system x\n",
            "job.yaml:1:4: a: tags (tag:yaml.org,2002:python/object:os.system) are not supported",
        ),
        ("a: &x 1\n", "job.yaml:1:4: a: anchors and aliases (& and *) are not supported; use params: ${params.x}"),
        ("? [a, b]\n: 1\n", "job.yaml:1:3: a key should be text"),
        ("a: " + "[" * 99 + "]" * 99, "job.yaml:1:36: nested deeper than 32 levels"),
    ],
)
def test_a_broken_file_is_one_clear_line(faults, text, line):
    assert faults(text) == [line]


def test_duplicate_keys_are_all_reported_with_the_first_place(faults):
    assert faults("a: 1\nb: {c: 1, c: 2}\na: 3\n") == [
        "job.yaml:2:11: b.c: given twice (first at job.yaml:2:5)",
        "job.yaml:3:1: a: given twice (first at job.yaml:1:1)",
    ]


def test_files_that_cannot_be_read(write):
    write("folder/x", "")
    for path, message in [
        ("nope.yaml", "nope.yaml: there is no such file"),
        ("folder", "folder: cannot be read: Is a dir"),
    ]:
        with pytest.raises(SpecError, match=message):
            read_document(path)


def test_a_file_above_1_mib_is_refused(faults):
    assert faults("a: " + "x" * (1 << 20)) == ["job.yaml: is larger than 1 MiB: not a job file"]


def test_a_flag_may_hold_flow_style():
    assert plain(parse_value("{a: [1, '2']}", "--x")) == {"a": [1, "2"]}
    with pytest.raises(SpecError, match="^--x: is not YAML"):
        parse_value("[1", "--x")


texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_dumped_reads_back_the_same(value):
    assert plain(parse_mapping(dump({"a": value}), "x")) == {"a": value}
