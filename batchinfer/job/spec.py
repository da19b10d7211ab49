"""The typed job file: what a user may ask for, with defaults, units and limits. One class per section.

Everything is frozen and closed: an unknown key is a fault. A choice is a tagged union (`format`, `kind`, `runner`),
so the rest of the product dispatches on types, not on strings. The field texts are the reference: they appear in
the JSON Schema. Knows nothing of YAML, files or flags (see load.py), and nothing of how a job runs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from batchinfer.job.section import ImportPath, Names, Scalar, Section, Share, Text, Words
from batchinfer.job.source_spec import Source


def _not_zero(count: int) -> int:
    if count == 0:
        raise ValueError("should be -1 or a positive whole number, got 0")
    return count


# --- task -----------------------------------------------------------------------------------------------------------


class TextTaskBase(Section):
    @property
    def fields_read(self) -> tuple[str, ...] | None:
        """Fields of a record that the task reads; None: it may read any."""
        return (self.text,)

    text: Text = Field(default="text", description="Field that holds the text.")
    max_length: PositiveInt | None = Field(
        default=None, description="Most tokens per text; default: the model's own limit."
    )
    truncate: bool = Field(default=False, description="Cut longer texts; otherwise each is a rejection.")


class EmbedTask(TextTaskBase):
    kind: Literal["embed"]
    pooling: Literal["mean", "cls", "max"] | None = Field(
        default=None, description="Default: what the checkpoint says, or mean."
    )
    normalize: bool = Field(default=True, description="Scale each vector to length 1.")
    output_dtype: Literal["float32", "float16"] = Field(
        default="float32", description="Of the vectors that are written."
    )


class ClassifyTask(TextTaskBase):
    @property
    def fields_read(self) -> tuple[str, ...] | None:
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    kind: Literal["classify"]
    text_pair: Text | None = Field(default=None, description="Field with the second text, for models that read pairs.")
    level: Literal["sequence", "token"] = Field(
        default="sequence", description="One answer per text, or one per token."
    )
    labels: Names | None = Field(default=None, description="Default: the checkpoint's own (id2label).")
    top_k: PositiveInt = Field(default=1, description="How many labels to give, best first.")
    probabilities: bool = Field(default=False, description="Also write the probability of every label.")
    multi_label: bool = Field(
        default=False, description="Labels are independent (sigmoid); give all above the threshold."
    )
    threshold: Share | dict[str, Share] = Field(
        default=0.5, description="For multi_label: one for all, or one per label."
    )

    @field_validator("top_k")
    @classmethod
    def _top_k_within_labels(cls, top_k: int, info: ValidationInfo) -> int:
        labels = info.data.get("labels")
        if labels and top_k > len(labels):
            raise ValueError(f"is {top_k}, but there are {len(labels)} labels")
        return top_k

    @field_validator("threshold")
    @classmethod
    def _threshold_fits(cls, threshold: float | dict[str, float], info: ValidationInfo) -> float | dict[str, float]:
        if info.data.get("multi_label") is False and threshold != 0.5:
            raise ValueError("means something only with multi_label: true")
        labels = info.data.get("labels")
        strangers = sorted(set(threshold) - set(labels)) if labels and isinstance(threshold, dict) else []
        if strangers:
            raise ValueError(f"is given for what is not among labels: {', '.join(strangers)}")
        return threshold


class ScorePairTask(Section):
    @property
    def fields_read(self) -> tuple[str, ...] | None:
        return (self.text, self.text_pair)

    kind: Literal["score_pair"]
    text: Text = Field(default="text", description="Field with the first text (the query).")
    text_pair: Text = Field(default="text_pair", description="Field with the second text (the passage).")
    max_length: PositiveInt | None = Field(
        default=None, description="Most tokens per pair; default: the model's own limit."
    )
    truncate: bool = Field(default=False, description="Cut longer pairs, the longer text first; otherwise a rejection.")
    activation: Literal["none", "sigmoid"] = Field(
        default="sigmoid", description="Of the score: sigmoid puts it in 0 to 1."
    )


class CustomTask(Section):
    @property
    def fields_read(self) -> tuple[str, ...] | None:
        return None

    kind: Literal["custom"]
    module: ImportPath = Field(description='The task class, "package.module:Class" (see batchinfer.tasks.Task).')
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments of the class.")


Task = Annotated[EmbedTask | ClassifyTask | ScorePairTask | CustomTask, Field(discriminator="kind")]

# --- model ----------------------------------------------------------------------------------------------------------


class Mesh(Section):
    data: Annotated[int, AfterValidator(_not_zero), Words("-1 or a positive whole number")] = Field(
        default=-1, ge=-1, description="Devices across which batches are split; -1: all that are left."
    )


class Model(Section):
    checkpoint: Text | None = Field(
        default=None,
        description="An Orbax or Hugging Face directory, or package://module/path inside an installed package.",
    )
    module: ImportPath | None = Field(
        default=None, description='Your own model: "package.module:factory" returning a Flax NNX or Linen module.'
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments of the factory.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Of matrix products; sums stay float32. `auto`: the fastest that keeps cosine >= 0.9999.",
    )
    mesh: Mesh = Field(default=Mesh(), description="How the devices are arranged.")

    @model_validator(mode="after")
    def _names_a_model(self) -> Self:
        if self.checkpoint is None and self.module is None:
            raise ValueError("needs checkpoint or module (or both)")
        if self.kwargs and self.module is None:
            raise ValueError("kwargs are arguments of module, but there is no module")
        return self


class Batching(Section):
    max_tokens: PositiveInt = Field(
        default=16384, description="Most tokens (padding included) in one batch of one device."
    )
    max_rows: PositiveInt | None = Field(
        default=None, description="Most rows in one batch; default: by max_tokens or 64."
    )
    buckets: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Lengths that texts are padded to, ascending; default: chosen from the model and device.",
    )
    share_rows: bool = Field(
        default=True, description="Let several short texts share one row, where task and model can; less padding."
    )
    window_rows: PositiveInt = Field(
        default=2048, description="Rows sorted by length together; bounds memory. Output order is the input's."
    )

    @field_validator("buckets")
    @classmethod
    def _buckets_ascend(cls, buckets: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if buckets is None:
            return None
        if any(low >= high for low, high in pairwise(buckets)):
            raise ValueError(f"should ascend, got {list(buckets)}")
        if buckets[-1] > info.data.get("max_tokens", buckets[-1]):
            raise ValueError(
                f"a row of {buckets[-1]} tokens does not fit a batch of max_tokens {info.data['max_tokens']}"
            )
        return buckets


# --- sink -----------------------------------------------------------------------------------------------------------


class SinkBase(Section):
    path: Text | None = Field(default=None, description="Output directory; default out/<name>.")
    include: Names = Field(default=(), description="Input fields to pass through to the output.")


class ParquetSink(SinkBase):
    format: Literal["parquet"] = "parquet"
    compression: Literal["zstd", "snappy", "none"] = Field(
        default="zstd", description="Of the pages; levels are fixed."
    )
    row_group_rows: PositiveInt = Field(default=8192, description="Rows per row group.")


class JsonlSink(SinkBase):
    format: Literal["jsonl"]
    compression: Literal["none", "gzip", "zstd"] = Field(
        default="none", description="Of the whole file; adds .gz or .zst to its name."
    )


class TFRecordSink(SinkBase):
    format: Literal["tfrecord"]
    compression: Literal["none", "gzip"] = Field(
        default="none", description="Of the whole file; adds .gz or .zst to its name."
    )


Sink = Annotated[ParquetSink | JsonlSink | TFRecordSink, Field(discriminator="format")]

# --- errors and run -------------------------------------------------------------------------------------------------


class Errors(Section):
    max_rate: float = Field(
        default=0.01, ge=0, le=1, description="Most rejections per record before the job stops (exit 3)."
    )
    min_rows: PositiveInt = Field(
        default=1000, description="The rate is judged from this many records on, and at the end."
    )
    retries: NonNegativeInt = Field(
        default=3, le=100, description="How often a unit that fails for a passing reason is tried again."
    )
    backoff_seconds: float = Field(
        default=0.5, ge=0, le=60, description="Wait before the first retry; doubles up to 30 s."
    )


class RunBase(Section):
    seed: int = Field(default=0, description="Of everything random: sampling of records.")
    units_in_flight: PositiveInt = Field(default=2, le=64, description="Units worked on at once in one process.")
    compile_cache: Text | None = Field(
        default=None,
        description='Directory of compiled programs; default ~/.cache/batchinfer/xla; "none" switches it off.',
    )
    progress_seconds: float = Field(default=10.0, gt=0, description="Between two log lines where there is no terminal.")


class DirectRun(RunBase):
    runner: Literal["direct"] = "direct"
    beam_options: dict[str, Scalar] = Field(
        default_factory=dict, description="Beam pipeline options; unknown ones are faults."
    )

    @field_validator("beam_options")
    @classmethod
    def _runner_is_not_beams(cls, options: dict[str, Scalar]) -> dict[str, Scalar]:
        if "runner" in options:
            raise ValueError("names a Beam runner: that needs `runner: beam` in run")
        return options


class BeamRun(RunBase):
    runner: Literal["beam"]
    beam_options: dict[str, Scalar] = Field(description="Beam pipeline options, `runner` among them.")

    @field_validator("beam_options")
    @classmethod
    def _runner_is_named(cls, options: dict[str, Scalar]) -> dict[str, Scalar]:
        if "runner" not in options:
            raise ValueError("should name a runner: {runner: FlinkRunner, ...}")
        return options


Run = Annotated[DirectRun | BeamRun, Field(discriminator="runner")]


class JobSpec(Section):
    """A whole job, resolved: every ${...} of its file and overrides has been replaced."""

    version: Literal[1] = Field(default=1, description="Of this file format.")
    name: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100),
        Words("letters, digits, dots, dashes or underscores, a letter or digit first, at most 100"),
    ] = Field(description="Letters, digits, dot, dash, underscore.")
    params: dict[str, Scalar] = Field(default_factory=dict, description="Values for ${params.x}; set with --param x=v.")
    source: Source = Field(description="Where records come from.")
    task: Task = Field(description="What a record means and what is predicted.")
    model: Model = Field(description="Which model predicts.")
    batching: Batching = Field(default=Batching(), description="How rows become batches.")
    sink: Sink = Field(default_factory=ParquetSink, description="Where predictions go; default: Parquet in out/<name>.")
    errors: Errors = Field(default=Errors(), description="What is tolerated, and what is tried again.")
    run: Run = Field(default_factory=DirectRun, description="Where and how the units run.")

    @property
    def output_path(self) -> str:
        return self.sink.path or f"out/{self.name}"
