"""Compilation ahead of time: once per bucket, cached on disk, counted.

Knows nothing of rows or batches; what a bucket's inputs look like is told by `windows.Signature`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
from jax import monitoring
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from batchinfer.engine.buckets import Bucket, slots_in
from batchinfer.engine.counters import EngineCounters
from batchinfer.engine.mesh import batch_sharding, split_by_rows
from batchinfer.engine.windows import Outputs, Signature
from batchinfer.errors import EngineError

logger = logging.getLogger(__name__)

Forward = Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]

COMPILE_THREADS_MAX = 4


def setup_compilation_cache(path: str | None) -> None:
    """Keep compiled programs in directory `path` (made if missing), small and quick ones too; None: keep none.

    A directory that cannot be made is no reason to fail: it is said once and nothing is kept.
    """
    if path is not None:
        path = os.path.expanduser(path)
        try:
            os.makedirs(path, exist_ok=True)
        except OSError as error:
            logger.warning("%s: compiled programs are not kept (%s); every run compiles again", path, error)
            path = None
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_enable_compilation_cache", path is not None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # jax looks at the directory once, at its first compilation; make it look again.
    compilation_cache.reset_cache()


# --- counting -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CompileCounts:
    """Programs that XLA compiled (`seconds`: how long that took) and programs loaded from the cache instead."""

    compilations: int = 0
    cache_hits: int = 0
    seconds: float = 0.0

    def __add__(self, other: CompileCounts) -> CompileCounts:
        return CompileCounts(
            self.compilations + other.compilations, self.cache_hits + other.cache_hits, self.seconds + other.seconds
        )

    def __sub__(self, other: CompileCounts) -> CompileCounts:
        return self + CompileCounts(-other.compilations, -other.cache_hits, -other.seconds)


class CompileLog:
    """Counts every program this process makes, whoever asks for it. Take `compile_log()`, there is only one.

    jax reports a cache hit before the end of the compilation it replaced, on the same thread.
    """

    HIT = "/jax/compilation_cache/cache_hits"
    DONE = "/jax/core/compile/backend_compile_duration"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = CompileCounts()
        self._thread = threading.local()

    def total(self) -> CompileCounts:
        """Since the first call of `compile_log`, over all threads."""
        with self._lock:
            return self._total

    def of_this_thread(self) -> CompileCounts:
        return getattr(self._thread, "total", CompileCounts())

    def on_event(self, event: str, **_: str | int) -> None:
        if event == self.HIT:
            self._thread.hit = True

    def on_duration(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event != self.DONE:
            return
        hit = getattr(self._thread, "hit", False)
        self._thread.hit = False
        counts = CompileCounts(cache_hits=1) if hit else CompileCounts(compilations=1, seconds=duration_secs)
        self._thread.total = self.of_this_thread() + counts
        with self._lock:
            self._total = self._total + counts


@cache
def compile_log() -> CompileLog:
    """The log of this process; it listens from the first call on."""
    log = CompileLog()
    monitoring.register_event_listener(log.on_event)
    monitoring.register_event_duration_secs_listener(log.on_duration)
    return log


# --- programs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """One compiled bucket, and what axis 1 of its outputs is."""

    bucket: Bucket
    run: Callable[[Any, Mapping[str, Any]], Mapping[str, jax.Array]]
    outputs: Outputs


class Programs:
    """Compiles `forward` for each bucket once, whoever asks first and however many ask; in threads of its own."""

    def __init__(self, forward: Forward, params: Any, mesh: Mesh, signature: Signature):
        self._forward = forward
        self._params = params
        self._mesh = mesh
        self.signature = signature
        self._lock = threading.Lock()
        self._programs: dict[Bucket, Future[Program]] = {}
        self._counters = EngineCounters()
        self._jitted = jax.jit(split_by_rows(self._checked, mesh))
        threads = min(COMPILE_THREADS_MAX, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batchinfer-compile")

    def request(self, bucket: Bucket) -> Future[Program]:
        """The program of `bucket`, made now if nobody asked before. Its failure is the future's."""
        with self._lock:
            if bucket not in self._programs:
                self._programs[bucket] = self._pool.submit(self._compile, bucket)
            return self._programs[bucket]

    def counters(self) -> EngineCounters:
        with self._lock:
            return self._counters

    def close(self) -> None:
        """Wait for compilations under way; forget those not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _compile(self, bucket: Bucket) -> Program:
        log = compile_log()
        before, start = log.of_this_thread(), time.perf_counter()
        lowered = self._jitted.lower(self._params, self._inputs(bucket))
        outputs = self._outputs(bucket, lowered.out_info)
        compiled = lowered.compile()
        made = log.of_this_thread() - before
        seconds = time.perf_counter() - start
        with self._lock:
            self._counters += EngineCounters(
                compilations=made.compilations, cache_hits=made.cache_hits, compile_seconds=seconds
            )
        logger.debug("bucket %s: %s in %.2f s", bucket, "loaded" if made.cache_hits else "compiled", seconds)
        return Program(bucket, compiled, outputs)

    def _inputs(self, bucket: Bucket) -> dict[str, jax.ShapeDtypeStruct]:
        sharding = batch_sharding(self._mesh)
        shapes = self.signature.shapes(bucket, self._mesh.size)
        return {name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for name, (shape, dtype) in shapes.items()}

    def _checked(self, params: Any, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """`forward`, having made sure while it is traced that it returns what can be handed back row by row."""
        rows = next(iter(inputs.values())).shape[0]
        outputs = self._forward(params, inputs)
        if not isinstance(outputs, Mapping) or not outputs:
            raise EngineError(
                f"the model's forward must return named arrays in a mapping, not {type(outputs).__name__}"
            )
        for name, output in outputs.items():
            if output.shape[:1] != (rows,):
                raise EngineError(
                    f"output `{name}` has shape {output.shape} for a batch of {rows} rows: axis 0 must be the rows"
                )
        return dict(outputs)

    def _outputs(self, bucket: Bucket, outputs: Mapping[str, Any]) -> Outputs:
        if not self.signature.shared:
            return Outputs(self._by_length(bucket, outputs))
        slots = slots_in(bucket.length)
        for name, output in outputs.items():
            if output.shape[1:2] != (slots,):
                raise EngineError(
                    f"output `{name}` has shape {output.shape} for rows with {slots} slots: axis 1 must be the slots"
                )
        return Outputs(by_slot=True)

    def _by_length(self, bucket: Bucket, outputs: Mapping[str, Any]) -> frozenset[str]:
        """The outputs whose axis 1 follows the length; one that is as wide by chance (a vector, say) does not.

        Asked of the function itself at another length, with shapes only, where there is any doubt.
        """
        maybe = [name for name, out in outputs.items() if bucket.length > 1 and out.shape[1:2] == (bucket.length,)]
        if not maybe:
            return frozenset()
        shorter = Bucket(bucket.length - 1, bucket.rows)
        shapes = self.signature.shapes(shorter, devices=1)
        inputs = {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype) in shapes.items()}
        others = jax.eval_shape(self._forward, self._params, inputs)
        return frozenset(name for name in maybe if others[name].shape[1:2] == (shorter.length,))
