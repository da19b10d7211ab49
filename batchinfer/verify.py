"""Makes sure of a finished output: counts again, checksums again, and compares with what was committed.

Only reads. Knows nothing of how the output was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchinfer.commit import Commit, FileRecord
from batchinfer.errors import NotFoundError
from batchinfer.ledger import MANIFEST, Ledger, manifest_of, read_plan, sha256_of
from batchinfer.planner import Plan
from batchinfer.sinks.count import count_rows
from batchinfer.storage import Storage, join


def verify_output(output: str, storage: Storage, *, full: bool = True) -> list[str]:
    """Recounts and re-checksums a finished output; the list of what is wrong, empty if nothing is.

    `full` False compares sizes and totals only.
    """
    plan = read_plan(output, storage)
    if plan is None:
        return [f"{output}: there is no plan here; is it an output directory?"]
    ledger = Ledger(output, storage, plan)
    manifest = ledger.finished()
    if manifest is None:
        return [f"{output}: not finished ({len(ledger.commits())} of {len(plan.units)} units); run the job again"]
    problems = _totals(output, plan, ledger.commits(), manifest)
    for file in (FileRecord(**row) for row in manifest["files"]):
        problems += _file_problems(storage, join(output, file.path), file, full)
    return problems


def _totals(output: str, plan: Plan, commits: Mapping[int, Commit], manifest: Mapping[str, Any]) -> list[str]:
    if len(commits) != len(plan.units):
        return [f"{output}: {len(plan.units)} units planned, {len(commits)} committed"]
    recounted = manifest_of(plan, [commits[unit.id] for unit in plan.units])
    wrong = [name for name in ("rows_in", "predictions", "rejections", "files") if recounted[name] != manifest[name]]
    return [f"{join(output, MANIFEST)}: {name} does not agree with the commits" for name in wrong]


def _file_problems(storage: Storage, uri: str, file: FileRecord, full: bool) -> list[str]:
    try:
        size = storage.stat(uri).size_bytes
    except NotFoundError:
        return [f"{uri}: gone"]
    if size != file.bytes:
        return [f"{uri}: {size} bytes, committed with {file.bytes}"]
    if not full:
        return []
    if sha256_of(storage, uri) != file.sha256:
        return [f"{uri}: its bytes have changed since the commit (sha256 differs)"]
    with storage.open_read(uri) as stream:
        rows = count_rows(file.path, stream)
    return [] if rows == file.rows else [f"{uri}: {rows} rows, committed with {file.rows}"]
