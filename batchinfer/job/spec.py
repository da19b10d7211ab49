"""The typed job file: what a user may ask for, with defaults, units and limits. One class per section.

Everything is frozen and closed: an unknown key is a fault. A choice is a tagged union (`format`, `kind`, `runner`),
so the rest of the product dispatches on types, not on strings. The field texts are the reference: they appear in
the JSON Schema. Knows nothing of YAML, files or flags (see load.py), and nothing of how a job runs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, StringConstraints

Scalar = str | int | float | bool | None
Text = Annotated[str, StringConstraints(min_length=1)]
ImportPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
Compression = Literal["auto", "none", "gzip", "bzip2", "zstd"]


class Section(BaseModel):
    """Frozen, closed, strict: `rows: "many"` and unknown keys are faults, never guesses."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


# --- source ---------------------------------------------------------------------------------------------------------


class SourceBase(Section):
    path: Text | tuple[Text, ...] = Field(description="A file, a directory, a glob (`**` allowed), or a list of them.")
    key: Text | None = Field(None, description="Field that names a record; default: its file and row index.")
    columns: tuple[Text, ...] | None = Field(None, description="Fields to read; default: all that the job needs.")
    make: Text | None = Field(
        None, description="Python script, run once with `path` as its argument when nothing is found under `path`."
    )
    limit: PositiveInt | None = Field(None, description="Take only the first N records of the plan.")
    sample: float | None = Field(
        None, gt=0, le=1, description="Take about this share of the records, chosen by a hash of the key and the seed."
    )
    unit_bytes: PositiveInt | None = Field(
        None,
        description="Size of a unit in input bytes; default: 1/16 of the input, at least 256 KiB, at most 32 MiB.",
    )


class JsonlSource(SourceBase):
    format: Literal["jsonl"]
    compression: Compression = Field("auto", description="`auto` goes by the file name (.gz, .bz2, .zst).")
    max_line_bytes: PositiveInt = Field(64 << 20, description="A longer line is a rejection.")


class TextSource(SourceBase):
    format: Literal["text"]
    field: Text = Field("text", description="Name given to the line's text.")
    compression: Compression = Field("auto", description="`auto` goes by the file name (.gz, .bz2, .zst).")
    max_line_bytes: PositiveInt = Field(64 << 20, description="A longer line is a rejection.")


class CsvSource(SourceBase):
    format: Literal["csv", "tsv"]
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] | None = Field(
        None, description='Default: "," for csv, a tab for tsv.'
    )
    quote: Annotated[str, StringConstraints(min_length=1, max_length=1)] = '"'
    header: tuple[Text, ...] | None = Field(None, description="Column names of files without a header line.")
    compression: Compression = Field("auto", description="`auto` goes by the file name (.gz, .bz2, .zst).")
    max_line_bytes: PositiveInt = Field(64 << 20, description="A longer line is a rejection.")


class ParquetSource(SourceBase):
    format: Literal["parquet"]


class ArrowSource(SourceBase):
    format: Literal["arrow", "feather"]


class AvroSource(SourceBase):
    format: Literal["avro"]


class TFRecordSource(SourceBase):
    format: Literal["tfrecord"]
    compression: Literal["auto", "none", "gzip"] = "auto"


Source = Annotated[
    JsonlSource | TextSource | CsvSource | ParquetSource | ArrowSource | AvroSource | TFRecordSource,
    Field(discriminator="format"),
]

# --- task -----------------------------------------------------------------------------------------------------------


class TextTaskBase(Section):
    text: Text = Field("text", description="Field that holds the text.")
    max_length: PositiveInt | None = Field(None, description="Most tokens per text; default: the model's own limit.")
    truncate: bool = Field(False, description="Cut longer texts; otherwise each is a rejection.")


class EmbedTask(TextTaskBase):
    kind: Literal["embed"]
    pooling: Literal["mean", "cls", "max"] | None = Field(None, description="Default: what the checkpoint says, or mean.")
    normalize: bool = Field(True, description="Scale each vector to length 1.")
    output_dtype: Literal["float32", "float16"] = "float32"


class ClassifyTask(TextTaskBase):
    kind: Literal["classify"]
    text_pair: Text | None = Field(None, description="Field with the second text, for models that read pairs.")
    level: Literal["sequence", "token"] = Field("sequence", description="One answer per text, or one per token.")
    labels: tuple[Text, ...] | None = Field(None, description="Default: the checkpoint's own (id2label).")
    top_k: PositiveInt = Field(1, description="How many labels to give, best first.")
    probabilities: bool = Field(False, description="Also write the probability of every label.")
    multi_label: bool = Field(False, description="Labels are independent (sigmoid); give all above the threshold.")
    threshold: float | dict[str, float] = Field(0.5, description="For multi_label: one for all, or one per label.")


class ScorePairTask(Section):
    kind: Literal["score_pair"]
    text: Text = Field("text", description="Field with the first text (the query).")
    text_pair: Text = Field("text_pair", description="Field with the second text (the passage).")
    max_length: PositiveInt | None = Field(None, description="Most tokens per pair; default: the model's own limit.")
    truncate: bool = Field(False, description="Cut longer pairs, the longer text first; otherwise a rejection.")
    activation: Literal["none", "sigmoid"] = "sigmoid"


class CustomTask(Section):
    kind: Literal["custom"]
    module: ImportPath = Field(description='The task class, "package.module:Class" (see batchinfer.tasks.Task).')
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments of the class.")


Task = Annotated[EmbedTask | ClassifyTask | ScorePairTask | CustomTask, Field(discriminator="kind")]

# --- model ----------------------------------------------------------------------------------------------------------


class Mesh(Section):
    data: int = Field(-1, ge=-1, description="Devices across which batches are split; -1: all that are left.")


class Model(Section):
    checkpoint: Text | None = Field(
        None,
        description="An Orbax directory, a Hugging Face directory, or package://module/path inside an installed package.",
    )
    module: ImportPath | None = Field(
        None, description='Your own model: "package.module:factory" returning a Flax NNX or Linen module.'
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments of the factory.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Of matrix products; sums stay float32. `auto`: the fastest that keeps cosine >= 0.9999."
    )
    mesh: Mesh = Mesh()


class Batching(Section):
    max_tokens: PositiveInt = Field(16384, description="Most tokens (padding included) on the devices in one batch.")
    max_rows: PositiveInt | None = Field(None, description="Most rows in one batch; default: by max_tokens or 64.")
    buckets: tuple[PositiveInt, ...] | None = Field(
        None, description="Lengths that texts are padded to, ascending; default: chosen from the model and device."
    )
    window_rows: PositiveInt = Field(
        8192, description="Rows sorted by length together; bounds memory. Output order is the input's."
    )


# --- sink -----------------------------------------------------------------------------------------------------------


class SinkBase(Section):
    path: Text | None = Field(None, description="Output directory; default out/<name>.")
    include: tuple[Text, ...] = Field((), description="Input fields to pass through to the output.")


class ParquetSink(SinkBase):
    format: Literal["parquet"] = "parquet"
    compression: Literal["zstd", "snappy", "none"] = "zstd"
    row_group_rows: PositiveInt = Field(8192, description="Rows per row group.")


class JsonlSink(SinkBase):
    format: Literal["jsonl"]
    compression: Literal["none", "gzip", "zstd"] = "none"


class TFRecordSink(SinkBase):
    format: Literal["tfrecord"]
    compression: Literal["none", "gzip"] = "none"


Sink = Annotated[ParquetSink | JsonlSink | TFRecordSink, Field(discriminator="format")]

# --- errors and run -------------------------------------------------------------------------------------------------


class Errors(Section):
    max_rate: float = Field(0.01, ge=0, le=1, description="Most rejections per record before the job stops (exit 3).")
    min_rows: PositiveInt = Field(1000, description="The rate is judged from this many records on, and at the end.")
    retries: NonNegativeInt = Field(3, le=100, description="How often a unit that fails for a passing reason is tried again.")
    backoff_seconds: float = Field(0.5, ge=0, le=60, description="Wait before the first retry; doubles up to 30 s.")


class RunBase(Section):
    seed: int = Field(0, description="Of everything random: sampling of records.")
    units_in_flight: PositiveInt = Field(2, le=64, description="Units worked on at once in one process.")
    compile_cache: Text | None = Field(
        None, description='Directory of compiled programs; default ~/.cache/batchinfer/xla; "none" switches it off.'
    )
    progress_seconds: float = Field(10, gt=0, description="Between two log lines where there is no terminal.")


class DirectRun(RunBase):
    runner: Literal["direct"] = "direct"
    beam_options: dict[str, Scalar] = Field(default_factory=dict, description="Beam pipeline options; unknown ones are faults.")


class BeamRun(RunBase):
    runner: Literal["beam"]
    beam_options: dict[str, Scalar] = Field(description="Beam pipeline options, `runner` among them.")


Run = Annotated[DirectRun | BeamRun, Field(discriminator="runner")]


class JobSpec(Section):
    """A whole job, resolved: no ${...} is left in it."""

    version: Literal[1] = 1
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = Field(
        description="Letters, digits, dot, dash, underscore."
    )
    params: dict[str, Scalar] = Field(default_factory=dict, description="Values for ${params.x}; set with --param x=v.")
    source: Source
    task: Task
    model: Model
    batching: Batching = Batching()
    sink: Sink = Field(default_factory=ParquetSink, description="Where predictions go; default: Parquet in out/<name>.")
    errors: Errors = Errors()
    run: Run = Field(default_factory=DirectRun)

    @property
    def output_path(self) -> str:
        return self.sink.path or f"out/{self.name}"
