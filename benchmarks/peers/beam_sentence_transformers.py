"""What one would write with Apache Beam: JSON lines -> RunInference(sentence-transformers) -> one Parquet file.

    python beam_sentence_transformers.py IN.jsonl OUT --model DIRECTORY --dtype bfloat16

OUT is a directory that exists.
"""

# Its libraries are in another environment.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import torch
from apache_beam.io import ReadFromText, WriteToParquet
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from sentence_transformers import SentenceTransformer

BATCH_ROWS = 256


class SentenceTransformerHandler(ModelHandler[str, Any, SentenceTransformer]):
    """Texts to vectors, `BATCH_ROWS` at a time."""

    def __init__(self, model: str, dtype: str, max_length: int):
        super().__init__()
        self._model, self._dtype, self._max_length = model, dtype, max_length

    def load_model(self) -> SentenceTransformer:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        model = SentenceTransformer(self._model, device="cpu").to(getattr(torch, self._dtype))
        model.max_seq_length = self._max_length
        return model

    def run_inference(
        self, batch: Sequence[str], model: SentenceTransformer, inference_args: Mapping[str, Any] | None = None
    ) -> Iterable[Any]:
        return model.encode(list(batch), normalize_embeddings=True, show_progress_bar=False)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"min_batch_size": BATCH_ROWS, "max_batch_size": BATCH_ROWS}


def keyed(line: str) -> tuple[str, str]:
    row = json.loads(line)
    return row["id"], row["text"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--max_length", type=int, default=256)
    options = parser.parse_args()
    handler = SentenceTransformerHandler(options.model, options.dtype, options.max_length)
    schema = pa.schema([("id", pa.string()), ("embedding", pa.list_(pa.float32()))])
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        (
            pipeline
            | ReadFromText(options.source)
            | beam.Map(keyed)
            | RunInference(KeyedModelHandler(handler))
            | beam.Map(lambda row: {"id": row[0], "embedding": row[1]})
            | WriteToParquet(os.path.join(options.output, "part"), schema, file_name_suffix=".parquet")
        )


if __name__ == "__main__":
    main()
