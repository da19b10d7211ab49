"""A folder to write job files and overlays into; messages name them by their short names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from batchinfer.errors import SpecError
from batchinfer.job import LoadedJob, load

MINIMAL = """\
name: demo
source: {format: jsonl, path: in.jsonl}
task: {kind: embed}
model: {checkpoint: ckpt}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | bytes], str]:
    monkeypatch.chdir(tmp_path)

    def write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    return write


@pytest.fixture
def job(write) -> Callable[..., LoadedJob]:
    """Loads the minimal job with `more` lines; keywords as for `load`. No environment unless given."""

    def job(more: str = "", overrides=(), **options) -> LoadedJob:
        return load(write("job.yaml", MINIMAL + more), overrides, **{"env": {}, **options})

    return job


@pytest.fixture
def faults(write) -> Callable[..., list[str]]:
    """The lines a user reads when a job file with this text is loaded."""

    def faults(text: str | bytes, overrides=(), **options) -> list[str]:
        with pytest.raises(SpecError) as caught:
            load(write("job.yaml", text), overrides, **{"env": {}, **options})
        return str(caught.value).splitlines()

    return faults


@pytest.fixture
def minimal() -> str:
    return MINIMAL
