"""What one would write with Ray Data: JSON lines -> map_batches(sentence-transformers), one actor -> Parquet.

    python ray_sentence_transformers.py IN.jsonl OUT --model DIRECTORY --dtype bfloat16

OUT is a directory that exists.
"""

# Its libraries are in another environment.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import os
from typing import Any

import ray
import ray.data

CORES = len(os.sched_getaffinity(0))
BATCH_ROWS = 256


class Embed:
    """Holds the model; columns in, columns out."""

    def __init__(self, model: str, dtype: str, max_length: int):
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(CORES)
        self._model = SentenceTransformer(model, device="cpu").to(getattr(torch, dtype))
        self._model.max_seq_length = max_length

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        vectors = self._model.encode(list(batch["text"]), normalize_embeddings=True, show_progress_bar=False)
        return {"id": batch["id"], "embedding": vectors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--max_length", type=int, default=256)
    options = parser.parse_args()
    ray.init(num_cpus=CORES, include_dashboard=False, logging_level="warning")
    model = (options.model, options.dtype, options.max_length)
    (
        ray.data.read_json(options.source)
        .map_batches(
            Embed,
            fn_constructor_args=model,
            batch_size=BATCH_ROWS,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        .write_parquet(options.output)
    )


if __name__ == "__main__":
    main()
