"""The sinks: one file per output format. `open_sink` is the way in; rejected rows have a format of their own.

Only the format that is asked for is imported.
"""

from __future__ import annotations

from typing import assert_never

from batchinfer.errors import Fault, SpecError
from batchinfer.job import spec
from batchinfer.sinks.base import Sink
from batchinfer.sinks.rejects import rejected_line

__all__ = ["open_sink", "rejected_line"]


def open_sink(wanted: spec.Sink) -> Sink:
    """The sink for this part of a job. Raises SpecError if a package that the format needs is not installed."""
    match wanted:
        case spec.ParquetSink():
            from batchinfer.sinks.parquet import ParquetSink

            return ParquetSink(wanted)
        case spec.JsonlSink():
            from batchinfer.sinks.jsonl import JsonlSink

            return JsonlSink(wanted)
        case spec.TFRecordSink():
            try:
                from batchinfer.sinks.tfrecord import TFRecordSink
            except ModuleNotFoundError as error:
                message = f"tfrecord needs the package {error.name}: pip install 'batchinfer[formats]'"
                raise SpecError([Fault("", "sink.format", message)]) from error
            return TFRecordSink(wanted)
        case _:
            assert_never(wanted)
