"""Rooms for input formats: a job's `source` section goes in, something that cuts and reads files comes out."""

from __future__ import annotations

from batchinfer.errors import SourceError
from batchinfer.job import source_spec as job
from batchinfer.sources.base import Partitions, Slice, Source
from batchinfer.sources.columns import ArrowSource, ParquetSource
from batchinfer.sources.csv_lines import CsvSource
from batchinfer.sources.inputs import Input, cut_inputs, find_inputs
from batchinfer.sources.lines import LineSource
from batchinfer.sources.select import Sampled, limit_slices
from batchinfer.storage.base import Storage

__all__ = [
    "Input",
    "Partitions",
    "Slice",
    "Source",
    "cut_inputs",
    "find_inputs",
    "limit_slices",
    "open_source",
]


def open_source(spec: job.Source, storage: Storage, seed: int = 0) -> Source:
    """The source of a job; with `sample`, the share of it that `seed` chooses (`limit`: see limit_slices).

    Raises SourceError if the format needs a package that is not installed.
    """
    source = _by_format(spec, storage)
    return source if spec.sample is None else Sampled(source, spec.sample, seed)


def _by_format(spec: job.Source, storage: Storage) -> Source:
    match spec:
        case job.JsonlSource() | job.TextSource():
            return LineSource(spec, storage)
        case job.CsvSource():
            return CsvSource(spec, storage)
        case job.ParquetSource():
            return ParquetSource(spec, storage)
        case job.ArrowSource():
            return ArrowSource(spec, storage)
        case job.AvroSource():
            return _avro(spec, storage)
        case job.TFRecordSource():
            return _tfrecord(spec, storage)


def _avro(spec: job.AvroSource, storage: Storage) -> Source:
    try:
        from batchinfer.sources.avro import AvroSource  # the package it stands on is an extra
    except ModuleNotFoundError as error:
        raise _needs(spec, error) from error
    return AvroSource(spec, storage)


def _tfrecord(spec: job.TFRecordSource, storage: Storage) -> Source:
    try:
        from batchinfer.sources.tfrecord import TFRecordSource  # the package it stands on is an extra
    except ModuleNotFoundError as error:
        raise _needs(spec, error) from error
    return TFRecordSource(spec, storage)


def _needs(spec: job.Source, error: ModuleNotFoundError) -> SourceError:
    path = spec.path if isinstance(spec.path, str) else spec.path[0]
    return SourceError(path, f"reading {spec.format} needs {error.name}: pip install 'batchinfer[formats]'")
