"""The plan: the ordered list of units, and the fingerprint of everything that can change output bytes.

Two plans with one fingerprint describe the same output. What only changes how the work is done (runner, workers,
retries, mesh, where the output lies) is not in it. Starts no jax; knows nothing of commits or of how units run.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from batchinfer.errors import Fault, SourceError, SpecError, StorageError, TransientStorageError
from batchinfer.job import LoadedJob, describe
from batchinfer.job.source_spec import ArrowSource, CsvSource, ParquetSource
from batchinfer.job.spec import CustomTask, JobSpec
from batchinfer.job.suggest import did_you_mean
from batchinfer.models.checkpoints import locate
from batchinfer.sources import Slice, Source, cut_inputs, find_inputs, limit_slices, open_source
from batchinfer.sources.only import OnlyRows, Rows
from batchinfer.storage import Entry, storage_for

UNIT_BYTES_MIN = 256 << 10
UNIT_BYTES_MAX = 32 << 20
UNITS_WANTED = 16
MAKE_SECONDS_MAX = 600

_NAMES_ITS_COLUMNS = (CsvSource, ParquetSource, ArrowSource)

_NOT_IN_FINGERPRINT = {
    "name": True,
    "params": True,
    "errors": True,
    "source": {"path", "make"},
    "model": {"checkpoint", "mesh"},
    "sink": {"path"},
    "run": {"units_in_flight", "compile_cache", "progress_seconds", "runner", "beam_options"},
}


@dataclass(frozen=True, slots=True)
class Unit:
    """A stable piece of the input: one slice, or several small files in a row."""

    id: int
    slices: tuple[Slice, ...]

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.slices)

    @property
    def rows(self) -> int | None:
        """Records in it, None where only reading can tell."""
        counts = [piece.rows if piece.take is None else piece.take for piece in self.slices]
        return None if None in counts else sum(counts)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done. `identity` holds, by name, all that the fingerprint covers."""

    name: str
    identity: Mapping[str, Any]
    units: tuple[Unit, ...]
    fields: pa.Schema
    """Types of the record fields that go to the output: the key first, then `sink.include`."""
    job: str
    """The resolved job as YAML, values taken from the environment redacted."""

    @property
    def fingerprint(self) -> str:
        whole = {"identity": self.identity, "units": [_unit_row(unit) for unit in self.units]}
        return hashlib.sha256(orjson.dumps(whole, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def rows(self) -> int | None:
        counts = [unit.rows for unit in self.units]
        return None if None in counts else sum(counts)  # type: ignore[arg-type]

    @property
    def size_bytes(self) -> int:
        return sum(unit.size_bytes for unit in self.units)

    def to_json(self) -> bytes:
        """One line a unit, so that a plan of 100,000 units can still be read and compared."""
        head = {
            "fingerprint": self.fingerprint,  # first: the ledger looks for it in the first bytes
            "name": self.name,
            "identity": dict(sorted(self.identity.items())),
            "job": self.job,
            "fields": {field.name: str(field.type) for field in self.fields},
            "fields_ipc": base64.b64encode(self.fields.serialize().to_pybytes()).decode(),
        }
        text = orjson.dumps(head, option=orjson.OPT_INDENT_2).removesuffix(b"\n}")
        units = b",\n".join(b"    " + orjson.dumps(_unit_row(unit)) for unit in self.units)
        return text + b',\n  "units": [\n' + units + b"\n  ]\n}\n"

    @classmethod
    def from_json(cls, data: bytes) -> Plan:
        row = orjson.loads(data)
        fields = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(row["fields_ipc"])))
        units = tuple(_unit_of(i, unit) for i, unit in enumerate(row["units"]))
        return cls(row["name"], row["identity"], units, fields, row["job"])


def _unit_row(unit: Unit) -> list[dict[str, Any]]:
    return [asdict(piece) for piece in unit.slices]


def _unit_of(number: int, row: list[dict[str, Any]]) -> Unit:
    return Unit(
        number, tuple(Slice(**{**piece, "partitions": tuple(map(tuple, piece["partitions"]))}) for piece in row)
    )


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, one line each: `batching.max_tokens: 16384 -> 8192`."""
    before, after = dict(_flat("", old)), dict(_flat("", new))
    names = sorted(before.keys() | after.keys())
    return [
        f"{name}: {_short(before.get(name))} -> {_short(after.get(name))}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- making a plan --------------------------------------------------------------------------------------------------


def make_plan(loaded: LoadedJob, only: Rows | None = None) -> Plan:
    """Lists and cuts the input, identifies the model, and freezes both.

    `only` keeps just those rows (a replay).
    Raises SourceError, RestoreError or SpecError, before any work is done.
    """
    spec = loaded.spec
    make_input(spec)
    source = source_for(spec, only)
    with _input_faults():
        inputs = find_inputs(spec.source, storage_for(_first_path(spec)))
        target = spec.source.unit_bytes or _unit_bytes(sum(item.entry.size_bytes for item in inputs))
        slices = cut_inputs(inputs, source, target)
        if spec.source.limit is not None:
            slices = limit_slices(slices, spec.source.limit, source)
        units = tuple(Unit(i, group) for i, group in enumerate(_group(slices, target)))
        fields = output_fields(spec, source.fields(units[0].slices[0]))
    identity = _identity(loaded, [item.entry for item in inputs], only)
    return Plan(spec.name, identity, units, fields, describe(spec, loaded.env_fields))


@contextmanager
def _input_faults() -> Iterator[None]:
    """An input that storage cannot give for good (permission denied, ...) is a fault of the job."""
    try:
        yield
    except TransientStorageError:
        raise
    except StorageError as error:
        raise SourceError(error.uri, error.message) from error


def source_for(spec: JobSpec, only: Rows | None = None) -> Source:
    """The job's source, reading just the columns it needs, sampled if the job says so."""
    wanted = spec.source
    if wanted.columns is None and spec.task.fields_read is not None:
        key = (wanted.key,) if wanted.key else ()
        wanted = wanted.model_copy(
            update={"columns": tuple(dict.fromkeys((*key, *spec.task.fields_read, *spec.sink.include)))}
        )
    source = open_source(wanted, storage_for(_first_path(spec)), seed=spec.run.seed)
    return source if only is None else OnlyRows(source, only)


def make_input(spec: JobSpec) -> None:
    """Runs `source.make` if nothing is found under the path. Raises SourceError if it fails or makes nothing."""
    script, path = spec.source.make, _first_path(spec)
    if script is None or next(iter(storage_for(path).list(path)), None) is not None:
        return
    if not Path(script).is_file():
        raise SourceError(path, f'not there, and neither is the script that makes it, "{script}" (source.make)')
    command = [sys.executable, script, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_SECONDS_MAX, check=False)
    if done.returncode != 0 or next(iter(storage_for(path).list(path)), None) is None:
        last = (done.stderr.strip().splitlines() or ["it wrote no such file"])[-1]
        raise SourceError(path, f'"{script}" (source.make) did not make it, exit {done.returncode}: {last}')


def _first_path(spec: JobSpec) -> str:
    path = spec.source.path
    return path if isinstance(path, str) else path[0]


def _unit_bytes(total: int) -> int:
    return max(UNIT_BYTES_MIN, min(UNIT_BYTES_MAX, -(-total // UNITS_WANTED)))


def _group(slices: Iterator[Slice], target_bytes: int) -> Iterator[tuple[Slice, ...]]:
    """Whole small files share a unit; anything compressed (rows unknown) keeps one of its own."""
    group: list[Slice] = []
    size = 0
    for piece in slices:
        alone = piece.rows is None
        if group and (alone or size + piece.size_bytes > target_bytes):
            yield tuple(group)
            group, size = [], 0
        if alone:
            yield (piece,)
        else:
            group.append(piece)
            size += piece.size_bytes
    if group:
        yield tuple(group)


def output_fields(spec: JobSpec, fields: pa.Schema) -> pa.Schema:
    """Key and passed-through columns of the output, with the types found in the input."""
    key = spec.source.key
    kept = [pa.field("key", pa.string())] if key is None else [_field(fields, key)]
    include = [name for name in dict.fromkeys(spec.sink.include) if name != key]
    if isinstance(spec.source, _NAMES_ITS_COLUMNS):
        _check_included(_first_path(spec), include, fields.names)
    kept += [_field(fields, name) for name in include]
    return pa.schema(kept)


def _check_included(path: str, include: Sequence[str], known: Sequence[str]) -> None:
    """Where the file itself says which columns it has, one that it lacks is not simply null."""
    for name in include:
        if name not in known:
            raise SourceError(path, f'has no column "{name}", which sink.include names{did_you_mean(name, known)}')


def _field(fields: pa.Schema, name: str) -> pa.Field:
    place = fields.get_field_index(name)
    if place < 0 or pa.types.is_null(fields.field(place).type):
        return pa.field(name, pa.string())
    return pa.field(name, fields.field(place).type)


def _identity(loaded: LoadedJob, inputs: Sequence[Entry], only: Rows | None) -> dict[str, Any]:
    spec = loaded.spec
    job = _veiled(spec.model_dump(mode="json", exclude=_NOT_IN_FINGERPRINT), "", loaded.env_fields)  # type: ignore[arg-type]
    job["inputs"] = {entry.uri: f"{entry.size_bytes} bytes, version {entry.version}" for entry in inputs}
    if spec.model.checkpoint is not None:
        place = locate.resolve(spec.model.checkpoint, own_module=spec.model.module is not None)
        job["checkpoint"] = {row["path"]: row for row in locate.identity(place)}
    modules = [spec.model.module] + ([spec.task.module] if isinstance(spec.task, CustomTask) else [])
    job["code"] = {module: _code_hash(module) for module in modules if module}
    if only is not None:
        job["only_rows"] = only.digest
    return job


def _veiled(value: Any, path: str, secret: Mapping[str, str]) -> Any:
    """`value` with what came from the environment replaced by a hash: a plan is a file that others read."""
    if path in secret:
        return f"{secret[path]}, sha256 {hashlib.sha256(str(value).encode()).hexdigest()[:16]}"
    if isinstance(value, dict):
        return {key: _veiled(inner, f"{path}.{key}" if path else key, secret) for key, inner in value.items()}
    return value


def _code_hash(path: str) -> str:
    """sha256 of the file of a user's module (found without importing it)."""
    module = path.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except ImportError:
        found = None
    if found is None or found.origin is None:
        raise SpecError([Fault("", "module", f'there is no module "{module}" on the Python path')])
    return hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
