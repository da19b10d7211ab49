"""One pass of a model over many rows: windows of examples in, a future of numpy arrays out.

    submit -> pack into batches -> bounded queue -> lanes (threads): assemble, device_put, run, fetch, scatter -> future

A lane holds one batch from queue to result, so there are as many batches in flight as lanes: on a CPU one per core,
on an accelerator two, one computing while the next is made ready. Every bucket is compiled ahead of time; nothing
else compiles (promise P7). Knows nothing of tasks, records, files or units.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from jax.sharding import Mesh

from batchinfer.engine.buckets import Batch, Bucket, BucketSet, DeviceProfile, pack
from batchinfer.engine.compile import Forward, Program, Programs, compile_log
from batchinfer.engine.counters import EngineCounters, Occupancy
from batchinfer.engine.mesh import batch_sharding, replicated
from batchinfer.engine.sharing import Row, alone, row_length, share_rows
from batchinfer.engine.windows import Example, Shard, Signature, Window, assemble
from batchinfer.errors import EngineError

logger = logging.getLogger(__name__)

OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True, slots=True, eq=False)
class _Queued:
    window: Window
    batch: Batch


@dataclass(frozen=True, slots=True)
class _Step:
    """What the devices do at once: one batch each, all of one bucket."""

    bucket: Bucket
    shards: tuple[Shard, ...]


class ForwardEngine:
    """Runs `forward(params, inputs) -> outputs`, a pure function, over rows of any number.

    `inputs`: each array of the examples as [B, L, ...] padded with zeros to the bucket's length L, and
    `lengths: int32[B]` (0: a padding row). Rows of one fixed shape: [B, ...] each, no `lengths`; padding rows are
    zeros. `outputs`: named arrays [B, ...]; one whose axis 1 follows L comes back as [N, longest row, ...], zero
    beyond each row's own length.
    Use as a context manager, or call `close`.
    """

    def __init__(
        self, forward: Forward, params: Any, mesh: Mesh, buckets: BucketSet, profile: DeviceProfile, max_queued: int = 4
    ):
        """`max_queued`: windows submitted and not yet done from which on `submit` waits."""
        compile_log()  # from now on compilations are counted
        self._forward = forward
        self._params = jax.device_put(params, replicated(mesh))
        self._mesh = mesh
        self._buckets = buckets
        self._max_queued = max_queued
        self._changed = threading.Condition()  # guards the state below
        self._queue: deque[_Queued] = deque()
        self._windows: set[Window] = set()
        self._closed = False
        self._programs: Programs | None = None
        self._notched: dict[Bucket, Bucket] = {}
        self._counters = EngineCounters()
        self._occupancy = Occupancy(profile.parallel)
        self._lanes = [
            threading.Thread(target=self._lane, name=f"batchinfer-lane-{n}", daemon=True) for n in range(profile.lanes)
        ]
        for lane in self._lanes:
            lane.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # --- for callers ------------------------------------------------------------------------------------------------

    def submit(self, examples: Sequence[Example]) -> Future[dict[str, np.ndarray]]:
        """The outputs of `examples`, in their order, [N, ...] each; {} for no examples. From any thread.

        Waits while `max_queued` windows are under way. Raises EngineError for examples that fit no bucket or differ
        from those before, and once the engine is closed; what goes wrong later is the future's exception.
        """
        if not examples:
            nothing: Future[dict[str, np.ndarray]] = Future()
            nothing.set_result({})
            return nothing
        programs = self._prepared(examples[0])
        for index, example in enumerate(examples):
            programs.signature.check(index, example)
        rows, batches = self._arranged([example.length for example in examples])
        window = Window(examples, rows, len(batches))
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._windows) < self._max_queued)
            self._check_open()
            for bucket in dict.fromkeys(batch.bucket for batch in batches):
                programs.request(self._notched.get(bucket, bucket))  # all compile at once; the lanes wait for each
            self._occupancy.submitted()
            self._windows.add(window)
            self._queue.extend(_Queued(window, batch) for batch in batches)
            self._changed.notify_all()
        return window.future

    def _arranged(self, lengths: Sequence[int]) -> tuple[list[Row], list[Batch]]:
        """Which examples share a row, and which rows a batch."""
        if not self._buckets.shared:
            return alone(len(lengths)), pack(lengths, self._buckets)
        rows = share_rows(lengths, self._buckets)
        return rows, pack([row_length(row, lengths) for row in rows], self._buckets)

    def warm_up(self, example: Example, buckets: Sequence[Bucket] | None = None) -> list[Future[Program]]:
        """Begin to compile `buckets` (default: all) for rows like `example`; waiting for the futures is optional."""
        programs = self._prepared(example)
        return [programs.request(bucket) for bucket in buckets or self._buckets.buckets]

    def counters(self) -> EngineCounters:
        """What was done up to now."""
        busy, available = self._occupancy.seconds()
        with self._changed:
            counters, programs = self._counters, self._programs
        counters += EngineCounters(busy_seconds=busy, available_seconds=available)
        return counters + programs.counters() if programs else counters

    def close(self) -> None:
        """Stop the lanes after the batches in hand. Windows not done by then fail with EngineError."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join()
        if self._programs:
            self._programs.close()
        for window in list(self._windows):
            self._fail(window, EngineError("the engine was closed before this window was done"))

    # --- setting up -------------------------------------------------------------------------------------------------

    def _prepared(self, example: Example) -> Programs:
        """The first example says what every example looks like."""
        with self._changed:
            self._check_open()
            if self._programs is None:
                signature = Signature.of(example, self._buckets.shared)
                self._programs = Programs(self._forward, self._params, self._mesh, signature)
            return self._programs

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed")

    # --- lanes ------------------------------------------------------------------------------------------------------

    def _lane(self) -> None:
        while (step := self._take()) is not None:
            try:
                done = self._compute(step)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is its windows' result; the lane lives on
                for shard in step.shards:
                    self._fail(shard.window, error)
                continue
            with self._changed:
                self._counters += done
            for shard in step.shards:
                if shard.window.batch_done():
                    self._forget(shard.window)

    def _take(self) -> _Step | None:
        """The oldest batch and, for the other devices, the oldest of the same bucket; None: time to stop.

        Which batches go side by side changes no result: each device computes its own as if alone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._queue)
            if self._closed:
                return None
            bucket = self._queue[0].batch.bucket
            taken = list(islice((q for q in self._queue if q.batch.bucket == bucket), self._mesh.size))
            for queued in taken:
                self._queue.remove(queued)
        return _Step(bucket, tuple(Shard(queued.window, queued.batch.rows) for queued in taken))

    def _compute(self, step: _Step) -> EngineCounters:
        """Run the step; out of memory, run it with half the rows at a time, and so on, for good."""
        while True:
            with self._changed:
                bucket = self._notched.get(step.bucket, step.bucket)
            try:
                done = EngineCounters()
                for part in _parts(step, bucket):
                    done += self._run(part)
                return done
            except jax.errors.JaxRuntimeError as error:
                if OUT_OF_MEMORY not in str(error):
                    raise
                self._drop_notch(step.bucket, bucket, error)

    def _run(self, step: _Step) -> EngineCounters:
        """One batch per device, from examples to results in their windows."""
        programs = self._programs
        assert programs is not None  # made before anything is queued
        program = programs.request(step.bucket).result()
        outputs = self._on_device(program, assemble(step.shards, programs.signature, step.bucket, self._mesh.size))
        for at, shard in enumerate(step.shards):
            first = at * step.bucket.rows
            own = {name: values[first : first + len(shard.rows)] for name, values in outputs.items()}
            shard.window.scatter(shard.rows, own, program.outputs)
        return EngineCounters(
            rows=sum(shard.window.count(shard.rows) for shard in step.shards),
            rows_issued=step.bucket.rows * self._mesh.size,
            tokens=sum(shard.window.tokens(shard.rows) for shard in step.shards),
            tokens_issued=step.bucket.rows * step.bucket.length * self._mesh.size,
            batches={step.bucket: len(step.shards)},
        )

    def _on_device(self, program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self._occupancy.enter()
        try:
            outputs = program.run(self._params, jax.device_put(inputs, batch_sharding(self._mesh)))
            for output in outputs.values():
                output.copy_to_host_async()
            return {name: np.asarray(output) for name, output in outputs.items()}
        finally:
            self._occupancy.leave()

    # --- when things go wrong ---------------------------------------------------------------------------------------

    def _drop_notch(self, asked: Bucket, tried: Bucket, error: Exception) -> None:
        """From now on `asked` runs with half the rows of `tried`, unless another lane has seen to it."""
        if tried.rows == 1:
            raise EngineError(
                f"out of device memory with one row of bucket {tried}: use a smaller model or dtype, "
                f"shorter rows (task.max_length), or more device memory ({_first_line(error)})"
            ) from error
        smaller = Bucket(tried.length, tried.rows // 2)
        with self._changed:
            if self._notched.get(asked, asked) != tried:
                return
            self._notched[asked] = smaller
            self._counters += EngineCounters(oom_notches=1)
        logger.warning("out of device memory in bucket %s: going on with %s (%s)", tried, smaller, _first_line(error))

    def _fail(self, window: Window, error: Exception) -> None:
        """The window's future gets the error; its other batches are not begun."""
        window.fail(error)
        self._forget(window)

    def _forget(self, window: Window) -> None:
        with self._changed:
            self._windows.discard(window)
            self._queue = deque(queued for queued in self._queue if queued.window is not window)
            self._changed.notify_all()


def _parts(step: _Step, bucket: Bucket) -> Iterator[_Step]:
    """The step cut into steps of `bucket`, which may have fewer rows."""
    for start in range(0, max(len(shard.rows) for shard in step.shards), bucket.rows):
        shards = (Shard(shard.window, shard.rows[start : start + bucket.rows]) for shard in step.shards)
        yield _Step(bucket, tuple(shard for shard in shards if shard.rows))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
