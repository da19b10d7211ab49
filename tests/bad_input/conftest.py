"""Bad input, through the real command line: one clear line and an exit code, or one rejection and the job goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from embed_jobs import Job


@pytest.fixture
def job(tmp_path: Path, capsys: Any, caplog: Any, compile_cache: str) -> Job:
    return Job(tmp_path, capsys, caplog, compile_cache)


@pytest.fixture
def before_work(job: Job, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job that must end before the runner is imported, without having written anything."""
    monkeypatch.setitem(sys.modules, "batchinfer.runners.launch", None)
    return job
