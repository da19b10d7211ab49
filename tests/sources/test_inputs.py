"""Which files a path, a directory, a glob or a list means, and what their paths add to the rows."""

from __future__ import annotations

import sys

import pytest

from batchinfer.errors import SourceError
from batchinfer.sources import cut_inputs, find_inputs, open_source
from batchinfer.storage.local import LocalStorage


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Makes files (name -> content) under the current directory."""
    monkeypatch.chdir(tmp_path)

    def make(**files: bytes) -> None:
        for name, data in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    return make


def found(spec) -> list[tuple[str, dict[str, str]]]:
    return [(item.entry.uri, dict(item.partitions)) for item in find_inputs(spec, LocalStorage())]


def text(spec_of, path, **more):
    return spec_of({"format": "text", "path": path, **more})


def rows(spec, target=1 << 20):
    storage = LocalStorage()
    source = open_source(spec, storage)
    slices = cut_inputs(find_inputs(spec, storage), source, target)
    return [row for piece in slices for row in source.read(piece)]


def test_a_directory_means_the_data_files_below_it_in_order(tree, spec_of):
    tree(
        **{"d/b.txt": b"b", "d/a.txt": b"a", "d/sub/c.txt": b"c", "d/_SUCCESS": b"x", "d/.a.crc": b"x", "d/_t/e": b"x"}
    )
    expected = ["d/a.txt", "d/b.txt", "d/sub/c.txt"]
    assert [uri for uri, _ in found(text(spec_of, "d"))] == expected
    assert [uri for uri, _ in found(text(spec_of, "d/"))] == expected


def test_globs_and_lists_keep_their_order_and_name_no_file_twice(tree, spec_of):
    tree(**{"d/1.txt": b"", "d/2.txt": b"", "d/x/3.txt": b"", "d/x/y/4.txt": b"", "e.txt": b""})
    assert [uri for uri, _ in found(text(spec_of, "d/**/*.txt"))] == ["d/1.txt", "d/2.txt", "d/x/3.txt", "d/x/y/4.txt"]
    listed = found(text(spec_of, ("e.txt", "d/[2-9].txt", "d", "e.txt")))
    assert [uri for uri, _ in listed] == ["e.txt", "d/2.txt", "d/1.txt", "d/x/3.txt", "d/x/y/4.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_itself(tree, spec_of):
    tree(**{"a[1].txt": b"x", "a1.txt": b"y"})
    assert [uri for uri, _ in found(text(spec_of, "a[1].txt"))] == ["a[1].txt"]


def test_partitions_below_the_root_become_fields(tree, spec_of):
    tree(**{"t=0/d/dt=2026-11-22/lang=a%2Fb/x.txt": b"row", "t=0/d/y.txt": b"row"})
    assert found(text(spec_of, "t=0/d")) == [
        ("t=0/d/dt=2026-11-22/lang=a%2Fb/x.txt", {"dt": "2026-11-22", "lang": "a/b"}),
        ("t=0/d/y.txt", {}),
    ]
    assert found(text(spec_of, "t=0/d/dt=*/**/x.txt"))[0][1] == {"dt": "2026-11-22", "lang": "a/b"}
    assert found(text(spec_of, "t=0/d/y.txt")) == [("t=0/d/y.txt", {})]
    first, second = rows(text(spec_of, "t=0/d"))
    assert first.fields == {"text": "row", "dt": "2026-11-22", "lang": "a/b"}
    assert second.fields == {"text": "row"}
    assert [row.key for row in rows(text(spec_of, "t=0/d", key="dt")) if row.key] == ["2026-11-22"]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_field_that_is_also_in_the_path_is_refused(tree, spec_of, form):
    tree(**{"d/dt=1/x": {"jsonl": b'{"dt":"2"}', "csv": b"dt\n2\n"}[form]})
    with pytest.raises(SourceError, match='d/dt=1/x: "dt" is a field of the rows and also in the path \\(dt=1\\)'):
        rows(spec_of({"format": form, "path": "d"}))


def test_the_same_partition_twice_in_a_path_is_refused(tree, spec_of):
    tree(**{"d/a=1/a=2/x": b"r"})
    with pytest.raises(SourceError, match='the path gives "a" twice'):
        found(text(spec_of, "d"))


def test_a_missing_file_is_named_with_a_near_one(tree, spec_of):
    tree(**{"data/sentences.jsonl": b"x"})
    with pytest.raises(
        SourceError, match='^data/sentense.jsonl: no such file.*\\(did you mean "sentences.jsonl"\\?\\)$'
    ):
        found(text(spec_of, "data/sentense.jsonl"))
    with pytest.raises(SourceError, match="^nowhere: no such file, nor a directory with data files in it$"):
        found(text(spec_of, "nowhere"))


def test_a_glob_that_matches_nothing_is_an_error(tree, spec_of):
    with pytest.raises(SourceError, match="^d/\\*.txt: no file matches; check source.path$"):
        found(text(spec_of, ("d/*.txt",)))


def test_empty_files_are_fine_unless_all_are(tree, spec_of):
    tree(**{"d/a.txt": b"", "d/b.txt": b"x", "e/a.txt": b"", "e/b.txt": b""})
    assert [row.fields["text"] for row in rows(text(spec_of, "d"))] == ["x"]
    with pytest.raises(SourceError, match="no records: all 2 files are empty"):
        rows(text(spec_of, "e"))


def test_a_file_changed_after_planning_is_an_error(tree, spec_of, tmp_path):
    tree(**{"a.txt": b"one\n"})
    spec, storage = text(spec_of, "a.txt"), LocalStorage()
    source = open_source(spec, storage)
    (piece,) = cut_inputs(find_inputs(spec, storage), source, 100)
    (tmp_path / "a.txt").write_bytes(b"another\n")
    with pytest.raises(SourceError, match="has changed since it was planned"):
        list(source.read(piece))


@pytest.mark.parametrize(("form", "module"), [("avro", "fastavro"), ("tfrecord", "google_crc32c")])
def test_a_format_whose_package_is_missing_says_what_to_install(spec_of, monkeypatch, form, module):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"batchinfer.sources.{form}", raising=False)
    with pytest.raises(SourceError, match=f"reading {form} needs {module}: pip install 'batchinfer\\[formats\\]'"):
        open_source(spec_of({"format": form, "path": "x"}), LocalStorage())
