"""The `source` section of a job: one class per input format. See spec.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, StringConstraints, ValidationInfo, field_validator

from batchinfer.job.section import Compression, Names, Paths, Section, Text


class SourceBase(Section):
    path: Text | Paths = Field(description="A file, a directory, a glob (`**` allowed), or a list of them.")
    key: Text | None = Field(default=None, description="Field that names a record; default: its file and row index.")
    columns: Names | None = Field(default=None, description="Fields to read; default: all that the job needs.")
    make: Text | None = Field(
        default=None,
        description="Python script, run once with `path` as its argument when nothing is found under `path`.",
    )
    limit: PositiveInt | None = Field(default=None, description="Take only the first N records of the plan.")
    sample: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Take about this share of the records, chosen by a hash of the key and the seed.",
    )
    unit_bytes: PositiveInt | None = Field(
        default=None,
        description="Size of a unit in input bytes; default: 1/16 of the input, at least 256 KiB, at most 32 MiB.",
    )


class JsonlSource(SourceBase):
    format: Literal["jsonl"]
    compression: Compression = Field(default="auto", description="`auto` goes by the file name (.gz, .bz2, .zst).")
    max_line_bytes: PositiveInt = Field(default=64 << 20, description="A longer line is a rejection.")


class TextSource(SourceBase):
    format: Literal["text"]
    field: Text = Field(default="text", description="Name given to the line's text.")
    compression: Compression = Field(default="auto", description="`auto` goes by the file name (.gz, .bz2, .zst).")
    max_line_bytes: PositiveInt = Field(default=64 << 20, description="A longer line is a rejection.")


class CsvSource(SourceBase):
    format: Literal["csv", "tsv"]
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = Field(
        default=None, description='Default: "," for csv, a tab for tsv.'
    )
    quote: Annotated[str, StringConstraints(min_length=1, max_length=1)] = Field(
        default='"', description="Character around a value that holds delimiters or newlines."
    )
    header: Names | None = Field(default=None, description="Column names of files without a header line.")
    compression: Compression = Field(default="auto", description="`auto` goes by the file name (.gz, .bz2, .zst).")
    max_line_bytes: PositiveInt = Field(default=64 << 20, description="A longer line is a rejection.")

    @field_validator("quote")
    @classmethod
    def _quote_is_not_delimiter(cls, quote: str, info: ValidationInfo) -> str:
        if quote == info.data.get("delimiter"):
            raise ValueError("should differ from delimiter")
        return quote


class ParquetSource(SourceBase):
    format: Literal["parquet"]


class ArrowSource(SourceBase):
    format: Literal["arrow", "feather"]


class AvroSource(SourceBase):
    format: Literal["avro"]


class TFRecordSource(SourceBase):
    format: Literal["tfrecord"]
    compression: Literal["auto", "none", "gzip"] = Field(
        default="auto", description="`auto` goes by the file name (.gz)."
    )


Source = Annotated[
    JsonlSource | TextSource | CsvSource | ParquetSource | ArrowSource | AvroSource | TFRecordSource,
    Field(discriminator="format"),
]
