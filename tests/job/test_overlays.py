"""Python overlays: what they may return, and what is said when they cannot be used."""

from __future__ import annotations

import sys

import pytest

CONFIG = "from ml_collections import ConfigDict, config_dict\n"


@pytest.mark.parametrize(
    "body",
    [
        "return ConfigDict({'batching': {'max_rows': 3}})",
        "return config_dict.FrozenConfigDict({'batching': {'max_rows': 3}})",
        "return {'batching': ConfigDict({'max_rows': 3})}",
        "return ConfigDict({'batching': {'max_rows': config_dict.FieldReference(2) + 1}})",
    ],
)
def test_configs_and_dicts_are_taken(job, write, body):
    write("x.py", f"{CONFIG}def get_config():\n  {body}\n")
    assert job("", overlays=["x.py"]).spec.batching.max_rows == 3


def test_an_argument_follows_the_file_name(job, write):
    write("x.py", "def get_config(size='7'): return {'batching': {'max_rows': int(size)}}")
    assert job("", overlays=["x.py"]).spec.batching.max_rows == 7
    assert job("", overlays=["x.py:9"]).spec.batching.max_rows == 9


def test_a_placeholder_means_null(job, write):
    write(
        "x.py", f"{CONFIG}def get_config(): return ConfigDict({{'source': {{'limit': config_dict.placeholder(int)}}}})"
    )
    more = "batching: {max_rows: 3}\n"
    assert job(more, overlays=["x.py"]).spec.source.limit is None


def test_bases_come_first_and_are_found_beside_the_overlay(job, write):
    write("site/base.py", "def get_config(): return {'batching': {'max_rows': 1, 'window_rows': 1}}")
    write("site/x.py", "def get_config(): return {'base': ['base.py'], 'batching': {'max_rows': 2}}")
    loaded = job("", overlays=["site/x.py"])
    assert (loaded.spec.batching.max_rows, loaded.spec.batching.window_rows) == (2, 1)
    assert loaded.origins["batching.window_rows"] == "site/base.py"


def test_overlays_leave_the_interpreter_alone(job, write):
    write("x.py", "import json\ndef get_config(): return {'name': json.loads('\"y\"')}")
    path, modules = list(sys.path), set(sys.modules)
    assert job("", overlays=["x.py"]).spec.name == "y"
    assert sys.path == path
    assert not {"x", "x.py"} & (set(sys.modules) - modules)


@pytest.mark.parametrize(
    ("source", "name", "line"),
    [
        ("", "nope.py", "nope.py: there is no such overlay"),
        ("", "x.yaml", "--config=x.yaml: should be a Python file, configs/x.py or configs/x.py:argument"),
        ("", "x.py", "x.py: has no function get_config()"),
        ("def get_config(:", "x.py", "x.py:1: is not Python: "),
        ("import nothing_like_it", "x.py", "x.py:1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("def get_config():\n  return 1 / 0", "x.py", "x.py:2: ZeroDivisionError: division by zero"),
        ("def get_config():\n  raise SystemExit(1)", "x.py", "x.py:2: SystemExit: 1"),
        ("def get_config(): return 3", "x.py", "x.py: get_config() should return a ConfigDict, got int"),
        ("def get_config(): return {}", "x.py:a", 'x.py: get_config takes no argument, but got "a"'),
        ("def get_config(a): return {}", "x.py", "x.py: get_config wants an argument: --config=x.py:ARGUMENT"),
        ("def get_config(): return {'base': 3}", "x.py", "x.py: base: should be a list of overlay files"),
        (
            "def get_config(): return {'model': {'kwargs': {'f': open}}}",
            "x.py",
            "x.py: model.kwargs.f: a job holds text, numbers,",
        ),
        ("def get_config(): return {1: 2}", "x.py", "x.py: every key should be text"),
        (
            "def get_config(): return {'batching': {'rows': 2}}",
            "x.py",
            "x.py: batching.rows: unknown key (did you mean max_rows?)",
        ),
        (
            "def get_config(): return {'base': 'x.py'}",
            "x.py",
            "x.py: base: overlays include each other in a circle: x.py -> x.py",
        ),
        (
            CONFIG + "def get_config(): return ConfigDict({'name': config_dict.required_placeholder(str)})",
            "x.py",
            "x.py: a required placeholder has no value: ",
        ),
    ],
)
def test_an_overlay_that_cannot_be_used_is_one_line(faults, minimal, write, source, name, line):
    write("x.py", source)
    [told] = faults(minimal, overlays=[name])
    assert told.startswith(line)


def test_a_circle_of_overlays_names_the_chain(faults, minimal, write):
    for one, other in [("a", "b"), ("b", "c"), ("c", "a")]:
        write(f"site/{one}.py", f"def get_config(): return {{'base': ['{other}.py']}}")
    assert faults(minimal, overlays=["site/a.py"]) == [
        "site/a.py: base: overlays include each other in a circle: site/a.py -> site/b.py -> site/c.py -> site/a.py"
    ]
