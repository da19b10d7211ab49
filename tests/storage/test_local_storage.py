"""The verbs of storage on the local file system; the same tests will run over every backend."""

import errno
import os
import socket
import subprocess
import sys
import threading

import pytest

from batchinfer.errors import NotFoundError, OutOfSpaceError, SourceError
from batchinfer.storage import storage_for
from batchinfer.storage.local import LocalStorage


@pytest.fixture
def storage():
    return LocalStorage()


def names(storage, pattern, root):
    return [entry.uri.removeprefix(f"{root}/") for entry in storage.list(pattern)]


def test_put_if_absent_creates_once_and_keeps_the_first(storage, tmp_path):
    uri = str(tmp_path / "a/commit.json")
    assert storage.put_if_absent(uri, b"one") is True
    assert storage.put_if_absent(uri, b"two") is False
    assert storage.read(uri) == b"one"


def test_put_if_absent_has_one_winner_among_threads(storage, tmp_path):
    uri, wins = str(tmp_path / "c"), []
    threads = [
        threading.Thread(target=lambda i=i: wins.append(storage.put_if_absent(uri, b"%d" % i))) for i in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(wins) == [False] * 15 + [True]


def test_no_temporaries_stay_behind(storage, tmp_path):
    storage.put_if_absent(str(tmp_path / "x"), b"1")
    storage.write(str(tmp_path / "x"), b"2")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_sweep_removes_what_a_killed_writer_left(storage, tmp_path):
    """By the process in the name, or by age where that is another host's."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(30)
    here = socket.gethostname()
    left = [f".tmp-{here}-{dead.pid}-1", ".tmp-elsewhere-1-1"]
    kept = [f".tmp-{here}-{os.getpid()}-1", ".tmp-elsewhere-1-2", "whole"]
    for name in (*left, *kept):
        (tmp_path / name).write_bytes(b"half")
    os.utime(tmp_path / left[1], (0, 0))
    storage.sweep(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_publish_can_be_repeated(storage, tmp_path):
    staged, final = str(tmp_path / "staging/part"), str(tmp_path / "part")
    with storage.open_write(staged) as stream:
        stream.write(b"rows")
    storage.publish(staged, final)
    storage.publish(staged, final)
    assert storage.read(final) == b"rows"


def test_publish_of_nothing_is_an_error(storage, tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        storage.publish(str(tmp_path / "a"), str(tmp_path / "b"))


def test_changed_input_is_refused(storage, tmp_path):
    path = tmp_path / "in"
    path.write_bytes(b"one")
    version = storage.stat(str(path)).version
    path.write_bytes(b"other")
    with pytest.raises(SourceError, match="has changed since it was planned"):
        storage.open_read(str(path), version)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["a.txt", "d/b.txt", "d/e/c.csv"]),
        ("*", ["a.txt"]),
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "d/b.txt"]),
        ("**", ["a.txt", "d/b.txt", "d/e/c.csv"]),
        ("d/*/c.*", ["d/e/c.csv"]),
        ("[ab].txt", ["a.txt"]),
        ("nothing*", []),
        ("_hidden/*", ["_hidden/x.txt"]),
    ],
)
def test_list_globs(storage, tmp_path, pattern, expected):
    for name in ("a.txt", "d/b.txt", "d/e/c.csv", "_hidden/x.txt", ".h", "d/_SUCCESS"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert names(storage, f"{tmp_path}/{pattern}".rstrip("/"), tmp_path) == expected


@pytest.mark.parametrize("pattern", ["", "/*.txt", "/**/*.txt", "/a.txt"])
def test_listed_uris_keep_the_prefix_they_were_asked_for_with(storage, tmp_path, pattern):
    (tmp_path / "a.txt").write_text("x")
    (entry,) = storage.list(f"file://{tmp_path}{pattern}")
    assert entry.uri == f"file://{tmp_path}/a.txt"
    assert storage.read(entry.uri) == b"x"


def test_missing_file_names_the_uri(storage, tmp_path):
    with pytest.raises(NotFoundError, match=r"gone\.jsonl: no such file"):
        storage.stat(str(tmp_path / "gone.jsonl"))


def test_full_disk_is_said_plainly(storage, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("batchinfer.storage.local.os.fsync", full)
    with pytest.raises(OutOfSpaceError, match="no space left on the device; free some and run again"):
        storage.put_if_absent(str(tmp_path / "x"), b"1")


def test_file_uris_and_unknown_schemes(tmp_path):
    storage_for("file://x")
    with pytest.raises(Exception, match='scheme "ftp" is not served'):
        storage_for("ftp://host/x")


def test_sweeping_does_not_hurt_a_writer_at_work(storage, tmp_path):
    """Two runs of one job may end at once: one sweeps and removes staging while the other still writes."""
    stop = threading.Event()

    def sweep():
        while not stop.is_set():
            storage.sweep(str(tmp_path))
            storage.delete_tree(str(tmp_path / "staging"))
            stop.wait(0.005)

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for i in range(60):
            storage.write(str(tmp_path / "manifest"), b"%d" % i)
            assert storage.put_if_absent(str(tmp_path / f"commit{i}"), b"1")
            storage.open_write(str(tmp_path / f"staging/{i}/part")).close()
    finally:
        stop.set()
        sweeper.join(10)
    assert storage.read(str(tmp_path / "manifest")) == b"59"
