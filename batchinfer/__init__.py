"""batchinfer: run trained JAX models over large datasets, offline.

    import batchinfer
    job = batchinfer.load_job("jobs/embed.yaml", {"source.limit": 100, "sink.path": "out/try"})
    report = batchinfer.run(job)

Importing it starts neither jax nor Beam.
"""

from batchinfer.api import dry_run, load_job, plan, rejected_rows, replay, run, status, verify
from batchinfer.errors import BatchInferError, RejectRow
from batchinfer.report.summary import RunReport
from batchinfer.user import RowTask

__all__ = [
    "BatchInferError", "RejectRow", "RowTask", "RunReport", "dry_run", "load_job", "plan", "rejected_rows", "replay",
    "run", "status", "verify",
]  # fmt: skip
