"""One process's part in a job: the model on its devices and the pool of threads that run units with them.

Built once per process and run, whoever asks first: the launcher, or a Beam worker that got a ticket.
Knows nothing of where units come from.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import pyarrow as pa

from batchinfer.engine.buckets import choose_buckets, device_profile
from batchinfer.engine.compile import setup_compilation_cache
from batchinfer.engine.forward import ForwardEngine
from batchinfer.engine.mesh import make_mesh, replicated
from batchinfer.errors import ConflictError, Fault, NotFoundError, SpecError
from batchinfer.halt import Halt
from batchinfer.job.spec import Batching, JobSpec, Model
from batchinfer.job.spec import Task as TaskSpec
from batchinfer.ledger import Ledger, read_plan
from batchinfer.models.load import load_model
from batchinfer.planner import source_for
from batchinfer.report.meter import Meter
from batchinfer.runners.pool import UnitPool
from batchinfer.sinks import open_sink
from batchinfer.sources.only import Rows
from batchinfer.storage import join, storage_for
from batchinfer.tasks import Task, head_of, make_task
from batchinfer.unit import Work


@dataclass(frozen=True, slots=True)
class Ticket:
    """All that a worker needs to take part in a run; small, and safe to pickle."""

    run_id: str
    job: bytes
    """The resolved job as JSON: flags and overlays do not reach workers."""
    only: Rows | None = None

    @property
    def spec(self) -> JobSpec:
        return JobSpec.model_validate_json(self.job)

    def leave(self, tally: bytes) -> None:
        storage_for(self._tally).write(self._tally, tally)

    def collect(self) -> bytes | None:
        """None if it could not be left."""
        storage = storage_for(self._tally)
        try:
            tally = storage.read(self._tally)
        except NotFoundError:
            return None
        storage.delete(self._tally)
        return tally

    @property
    def _tally(self) -> str:
        return join(self.spec.output_path, f"_batchinfer/runs/{self.run_id}.tally.json")


_POOLS: dict[str, UnitPool] = {}
_LOCK = threading.Lock()


def pool_for(ticket: Ticket) -> UnitPool:
    """This process's pool for a run; made, with its engine, when first asked for."""
    with _LOCK:
        if ticket.run_id not in _POOLS:
            _POOLS[ticket.run_id] = UnitPool(_work_of(ticket))
        return _POOLS[ticket.run_id]


def adopt(ticket: Ticket, pool: UnitPool) -> None:
    """Lets units that come back to this process run in a pool that exists already."""
    with _LOCK:
        _POOLS[ticket.run_id] = pool


def dismiss(ticket: Ticket) -> None:
    """Ends this process's part: waits for units in hand, frees the devices."""
    with _LOCK:
        pool = _POOLS.pop(ticket.run_id, None)
    if pool is not None:
        pool.close()
        pool.work.engine.close()


def _work_of(ticket: Ticket) -> Work:
    spec = ticket.spec
    storage = storage_for(spec.output_path)
    plan = read_plan(spec.output_path, storage)
    if plan is None:
        raise ConflictError(f"{spec.output_path}: the plan is gone; was the directory removed while the job ran?")
    return open_work(spec, Ledger(spec.output_path, storage, plan), ticket.only, Halt())


def open_work(spec: JobSpec, ledger: Ledger, only: Rows | None, halt: Halt) -> Work:
    """Opens the engine and makes everything else that units share.

    Raises RestoreError or SpecError if model, task and sink do not fit together.
    """
    opened = open_engine(spec.model, spec.task, spec.batching, spec.run.compile_cache)
    sink = open_sink(spec.sink)
    misfits = sink.check(pa.schema([*ledger.plan.fields, *opened.task.schema()]))
    if misfits:
        opened.engine.close()
        raise SpecError([Fault("", "sink.format", line) for line in misfits])
    meter = Meter()
    meter.note(f"batches (rows x tokens, per device): {opened.batches}")
    return Work(
        spec=spec,
        plan=ledger.plan,
        source=source_for(spec, only),
        task=opened.task,
        engine=opened.engine,
        sink=sink,
        ledger=ledger,
        meter=meter,
        halt=halt,
        devices=opened.devices,
    )


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """A model on its devices, ready for the rows of its task."""

    task: Task
    engine: ForwardEngine
    batches: str
    """For people: the shapes, and how many batches are in flight."""
    devices: str
    """For people: how many of which kind."""


def open_engine(model_spec: Model, task_spec: TaskSpec, batching: Batching, compile_cache: str | None) -> OpenEngine:
    """Loads the model onto this host's devices and starts its engine; `compile_cache` as in `run.compile_cache`.

    Raises RestoreError, or SpecError if model, task and batching do not fit together.
    """
    setup_compilation_cache(_cache_directory(compile_cache))
    mesh = make_mesh(model_spec.mesh.data)
    model = load_model(model_spec, sharding=replicated(mesh), head=head_of(task_spec))
    task = make_task(task_spec, model)
    device = mesh.devices.flat[0]
    profile = device_profile(device.platform, len(os.sched_getaffinity(0)))
    shared = batching.share_rows and task.shares_rows
    limits = (batching.max_tokens, batching.max_rows, batching.buckets)
    buckets = choose_buckets(task.max_length or 0, *limits, profile, shared=shared)
    return OpenEngine(
        task,
        ForwardEngine(task.forward, model.params, mesh, buckets, profile),
        batches=f"{buckets}; {profile.lanes} in flight",
        devices=f"{mesh.size} x {device.device_kind}",
    )


def _cache_directory(wanted: str | None) -> str | None:
    if wanted == "none":
        return None
    return wanted or os.path.join(os.path.expanduser("~"), ".cache", "batchinfer", "xla")
