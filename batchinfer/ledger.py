"""The ledger: which units are done, decided by one small conditional create each. The only writer of markers.

Layout of an output directory:

    part-00000-of-00010.parquet            predictions of unit 0
    rejected/part-00000-of-00010.jsonl     rejections of unit 0, if there are any
    _batchinfer/plan.json                  what is being done; created once, decides whose directory this is
    _batchinfer/commits/00000.json         created once; makes an attempt's files the unit's output
    _batchinfer/staging/00000-<random>/    files of an attempt that is not committed (or not published) yet
    _batchinfer/runs/<run>.json            times, hosts, metrics: the only files that differ from run to run
    _MANIFEST.json, _SUCCESS               written last, when every unit is committed, published and checked

The following hold at every instant, whatever is killed (each has a test):
1. A commit record never changes, and names files by path, size and sha256.
2. A committed unit's files are under their final names, or in staging with the same sha256.
3. A file under a final name is whole.
4. `_SUCCESS` names the fingerprint of the plan whose units are all committed and published.

An attempt is named by what it made (a hash over its files), so two attempts that made the same bytes are the same
attempt: whoever publishes first, the result is equal, and a lost response to a conditional create needs no guess.
Knows nothing of rows, models or runners.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from batchinfer.commit import Commit, FileRecord, StagedFile
from batchinfer.errors import (
    ConflictError,
    Fault,
    NotFoundError,
    OutOfSpaceError,
    SpecError,
    StorageError,
    TransientStorageError,
    VerifyError,
)
from batchinfer.planner import Plan, changes
from batchinfer.storage import Entry, Storage, escape, join

_PLAN = "_batchinfer/plan.json"
_COMMITS = "_batchinfer/commits"
_STAGING = "_batchinfer/staging"
_RUNS = "_batchinfer/runs"
MANIFEST = "_MANIFEST.json"
_SUCCESS = "_SUCCESS"

_FINGERPRINT = re.compile(rb'"fingerprint": "([0-9a-f]{64})"')
_HEAD_BYTES = 256


class Attempt:
    """One try at one unit. Files go to staging; `commit` makes them the unit's output, or finds that somebody did."""

    def __init__(self, ledger: Ledger, unit: int):
        self.unit = unit
        self._ledger = ledger
        self._staging = join(ledger.output, f"{_STAGING}/{unit:05d}-{uuid.uuid4().hex[:12]}")

    def create(self, path: str) -> StagedFile:
        return StagedFile(path, self._ledger.storage.open_write(join(self._staging, path)))

    def commit(self, commit: Commit) -> Commit:
        """Commits and publishes. Returns the commit that counts: this one, or an earlier one of another attempt."""
        ledger = self._ledger
        if commit.rows_in != commit.predictions + commit.rejections:
            raise VerifyError(
                f"unit {commit.unit}: {commit.rows_in} rows in, but {commit.predictions} predictions and "
                f"{commit.rejections} rejections; nothing was committed"
            )
        ledger.check_owner()
        winner = commit if ledger.record(commit) else ledger.commit_of(self.unit)
        if winner.attempt == commit.attempt:
            for file in winner.files:
                ledger.storage.publish(join(self._staging, file.path), join(ledger.output, file.path))
        else:
            ledger.publish(winner)
        ledger.storage.delete_tree(self._staging)
        return winner

    def abandon(self) -> None:
        self._ledger.storage.delete_tree(self._staging)


class Ledger:
    """The ledger of one output directory, for one plan."""

    def __init__(self, output: str, storage: Storage, plan: Plan):
        self.output, self.storage, self.plan = output, storage, plan
        self.fingerprint = plan.fingerprint

    # -- whose directory is it --

    def claim(self, *, overwrite: bool = False) -> None:
        """Makes the directory this plan's: creates the plan, or finds it there. Raises ConflictError if another is."""
        if overwrite:
            self._take_over()
            return
        if read_plan(self.output, self.storage) is None:
            self._refuse_strangers()
        if not self.storage.put_if_absent(self._at(_PLAN), self.plan.to_json()):
            self.check_owner()
            self._remove_foreign()

    def check_writable(self) -> None:
        """Raises SpecError if nothing can be written to the output: better known before a model is loaded."""
        probe = self._at(f"{_STAGING}/probe-{uuid.uuid4().hex[:12]}")
        try:
            self.storage.write(probe, b"")
            self.storage.delete(probe)
        except (OutOfSpaceError, TransientStorageError):
            raise
        except StorageError as error:
            message = f"{self.output}: cannot be written to ({error.message}); give a directory that can be"
            raise SpecError([Fault("", "sink.path", message)]) from error

    def check_owner(self) -> None:
        """Raises ConflictError, naming what changed, if the directory now belongs to another plan."""
        if self._owner() in (None, self.fingerprint):
            return
        found = read_plan(self.output, self.storage)
        if found is None:
            return
        lines = changes(found.identity, self.plan.identity) or ["the units: their files were cut differently"]
        raise ConflictError(
            f"{self.output}: holds the output of another plan; changed: {'; '.join(lines[:8])}"
            f"{f'; and {len(lines) - 8} more' if len(lines) > 8 else ''}. "
            "Give another --config.sink.path, or --overwrite to start anew"
        )

    def _owner(self) -> str | None:
        """The fingerprint of the plan that is there, from its first line: a plan may be large, and commits are many."""
        try:
            with self.storage.open_read(self._at(_PLAN)) as stream:
                found = _FINGERPRINT.search(stream.read(_HEAD_BYTES))
        except NotFoundError:
            return None
        return found.group(1).decode() if found else ""

    def _refuse_strangers(self) -> None:
        """Part files that no plan accounts for would be read as ours."""
        stranger = next(self._part_files(), None)
        if stranger is not None:
            raise ConflictError(
                f"{self.output}: already holds {stranger}, which no plan accounts for. "
                "Give another --config.sink.path, or --overwrite to remove it"
            )

    def _take_over(self) -> None:
        """The new plan is safely written before anything old goes; the success marker goes first."""
        self.storage.write(self._at(_PLAN), self.plan.to_json())
        self.storage.delete(self._at(_SUCCESS))
        self.storage.delete(self._at(MANIFEST))
        self.storage.delete_tree(self._at(_COMMITS))
        self.storage.delete_tree(self._at(_STAGING))
        self._sweep_parts(keep=frozenset())

    def _remove_foreign(self) -> None:
        """Ends a take-over that was killed half-way: what another plan left goes."""
        marker = self._read(_SUCCESS)
        if marker is not None and orjson.loads(marker)["fingerprint"] != self.fingerprint:
            self.storage.delete(self._at(_SUCCESS))
            self.storage.delete(self._at(MANIFEST))
        for unit, commit in self._records():
            if commit.fingerprint != self.fingerprint:
                self.storage.delete(self._commit_uri(unit))

    # -- units --

    def commits(self) -> dict[int, Commit]:
        """All committed units of this plan, from one listing."""
        return {unit: commit for unit, commit in self._records() if commit.fingerprint == self.fingerprint}

    def is_committed(self, unit: int) -> bool:
        data = self._read(f"{_COMMITS}/{unit:05d}.json")
        return data is not None and Commit.from_json(data).fingerprint == self.fingerprint

    def attempt(self, unit: int) -> Attempt:
        return Attempt(self, unit)

    def record(self, commit: Commit) -> bool:
        """Creates the commit record; False if there is one already."""
        return self.storage.put_if_absent(self._commit_uri(commit.unit), commit.to_json())

    def commit_of(self, unit: int) -> Commit:
        commit = Commit.from_json(self.storage.read(self._commit_uri(unit)))
        if commit.fingerprint != self.fingerprint:
            raise ConflictError(f"{self.output}: a run of another plan committed unit {unit}; stop it and run again")
        return commit

    def publish(self, commit: Commit) -> None:
        """Moves a committed unit's files to their final names, if whoever committed them was killed before that."""
        missing = [file for file in commit.files if not self._is_there(file)]
        for file in missing:
            staged = self._find_staged(commit.unit, file)
            if staged is not None:
                self.storage.publish(staged, self._at(file.path))
            elif not self._is_there(file):  # another worker may have published it meanwhile
                raise VerifyError(
                    f"{self._at(file.path)}: committed, but gone or changed; delete "
                    f"{self._commit_uri(commit.unit)} to have the unit computed again, or use --overwrite"
                )

    def _is_there(self, file: FileRecord) -> bool:
        try:
            return self.storage.stat(self._at(file.path)).size_bytes == file.bytes
        except NotFoundError:
            return False

    def _find_staged(self, unit: int, file: FileRecord) -> str | None:
        """A staged copy with the committed content, whichever attempt made it."""
        for entry in self._list(f"{_STAGING}/{unit:05d}-*/{file.path}"):
            if entry.size_bytes == file.bytes and sha256_of(self.storage, entry.uri) == file.sha256:
                return entry.uri
        return None

    # -- the end --

    def finalise(self) -> Mapping[str, Any]:
        """Checks that every unit is committed and published, sweeps what is left over, writes manifest and marker.

        Returns the manifest. Raises VerifyError.
        """
        commits = self.commits()
        missing = [unit.id for unit in self.plan.units if unit.id not in commits]
        if missing:
            raise VerifyError(f"{self.output}: {len(missing)} units are not committed, the first is {missing[0]}")
        for unit in self.plan.units:
            _check_rows(unit.rows, commits[unit.id])
            self.publish(commits[unit.id])
        self._sweep_parts(keep=frozenset(file.path for commit in commits.values() for file in commit.files))
        self.storage.delete_tree(self._at(_STAGING))
        self.storage.sweep(self._at(_COMMITS))
        manifest = manifest_of(self.plan, [commits[unit.id] for unit in self.plan.units])
        self.storage.write(self._at(MANIFEST), _json(manifest))
        self.check_owner()
        self.storage.write(self._at(_SUCCESS), _json({"fingerprint": self.fingerprint}))
        self.storage.sweep(self._at("_batchinfer"))
        self.storage.sweep(self.output)
        return manifest

    def finished(self) -> Mapping[str, Any] | None:
        """The manifest of this plan's finished output, None while it is not finished."""
        marker = self._read(_SUCCESS)
        if marker is None or orjson.loads(marker)["fingerprint"] != self.fingerprint:
            return None
        return orjson.loads(self.storage.read(self._at(MANIFEST)))

    def note_run(self, run_id: str, row: Mapping[str, Any]) -> None:
        self.storage.write(self._at(f"{_RUNS}/{run_id}.json"), _json(row))

    # -- files --

    def part_path(self, unit: int, suffix: str) -> str:
        return f"part-{unit:05d}-of-{len(self.plan.units):05d}{suffix}"

    def rejected_path(self, unit: int) -> str:
        return f"rejected/{self.part_path(unit, '.jsonl')}"

    def _records(self) -> Iterator[tuple[int, Commit]]:
        for entry in self._list(f"{_COMMITS}/*.json"):
            commit = _read_commit(self.storage, entry.uri)
            yield commit.unit, commit

    def _part_files(self) -> Iterator[str]:
        for pattern in ("part-*", "rejected/part-*"):
            for entry in self._list(pattern):
                yield entry.uri.removeprefix(f"{self.output.rstrip('/')}/")

    def _sweep_parts(self, keep: frozenset[str]) -> None:
        for path in list(self._part_files()):
            if path not in keep:
                self.storage.delete(self._at(path))

    def _list(self, pattern: str) -> Iterator[Entry]:
        return self.storage.list(join(escape(self.output), pattern))

    def _at(self, path: str) -> str:
        return join(self.output, path)

    def _commit_uri(self, unit: int) -> str:
        return self._at(f"{_COMMITS}/{unit:05d}.json")

    def _read(self, path: str) -> bytes | None:
        try:
            return self.storage.read(self._at(path))
        except NotFoundError:
            return None


def read_plan(output: str, storage: Storage) -> Plan | None:
    """The plan of an output directory; None if it holds none. Raises ConflictError if it cannot be read."""
    uri = join(output, _PLAN)
    try:
        return Plan.from_json(storage.read(uri))
    except NotFoundError:
        return None
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ConflictError(
            f"{uri}: is not a plan this version can read ({error}). "
            "Give another --config.sink.path, or --overwrite to start anew"
        ) from error


def _check_rows(planned: int | None, commit: Commit) -> None:
    """Promise P1 again at the end."""
    if commit.rows_in != commit.predictions + commit.rejections:
        raise VerifyError(f"unit {commit.unit}: predictions and rejections do not add up to rows in")
    if planned is not None and commit.rows_in != planned:
        raise VerifyError(f"unit {commit.unit}: {commit.rows_in} rows in, but {planned} were planned")


def manifest_of(plan: Plan, commits: list[Commit]) -> dict[str, Any]:
    """What `_MANIFEST.json` says; a function of plan and commits alone. `commits` in the order of the units."""
    reasons: dict[str, int] = {}
    for commit in commits:
        for reason, count in commit.rejections_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
    return {
        "version": 1,
        "name": plan.name,
        "fingerprint": plan.fingerprint,
        "units": len(plan.units),
        "rows_in": sum(commit.rows_in for commit in commits),
        "predictions": sum(commit.predictions for commit in commits),
        "rejections": sum(commit.rejections for commit in commits),
        "rejections_by_reason": dict(sorted(reasons.items())),
        "duplicate_keys": sum(commit.duplicate_keys for commit in commits),
        "files": [asdict(file) for commit in commits for file in commit.files],
        "identity": plan.identity,
    }


def _read_commit(storage: Storage, uri: str) -> Commit:
    try:
        return Commit.from_json(storage.read(uri))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise VerifyError(f"{uri}: is not a commit record ({error}); delete it to have the unit done again") from error


def sha256_of(storage: Storage, uri: str) -> str:
    """Of a file's bytes, streamed."""
    with storage.open_read(uri) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def _json(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"
