"""The sides of embed_peers.py, each run as a process of its own in its own environment.

    python embed_sides.py SIDE --texts FILE --model DIRECTORY --work DIRECTORY

Every side gets the same texts and cuts them to the same length, tokenises and pools within the measured time, and
gives float32 vectors of length 1. A side that can be run in several ways is run in the one that is fastest here.
"""

# Each side's libraries are in another environment.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import MAX_LENGTH, read_texts, serve

SWEEP_ROWS = (32, 64, 128)
SWEEP_TEXTS = 600
SWEEP_ROUNDS = 2
CORES = len(os.sched_getaffinity(0))
LAYOUTS = ((1, CORES), (CORES, 1))
"""Batches at once, threads each."""

Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts to float32[N, D], every vector of length 1."""


def fastest(ways: Mapping[str, Encode], texts: Sequence[str]) -> tuple[str, Encode]:
    """The way whose best time over a few hundred of the texts is least, and what it is called."""
    some = texts[:SWEEP_TEXTS]
    best = dict.fromkeys(ways, float("inf"))
    for encode in ways.values():
        encode(some[: SWEEP_TEXTS // 4])
    for _ in range(SWEEP_ROUNDS):
        for name, encode in ways.items():
            best[name] = min(best[name], seconds_of(encode, some))
    chosen = min(best, key=best.__getitem__)
    return f"{chosen} (fastest of {len(ways)})", ways[chosen]


def seconds_of(encode: Encode, texts: Sequence[str]) -> float:
    start = time.perf_counter()
    encode(texts)
    return time.perf_counter() - start


# --- ours -----------------------------------------------------------------------------------------------------------


def ours(options: argparse.Namespace, dtype: str) -> tuple[str, Encode]:
    """The job's own task and engine; the texts are those it was opened on."""
    from bare import Bare

    bare = Bare(
        {
            "source.path": options.texts,
            "sink.path": str(Path(options.work) / "none"),
            "task.max_length": MAX_LENGTH,
            "model.dtype": dtype,
            "run.compile_cache": "none",
        }
    )
    seconds = bare.compile(bare.prepared()[0])

    def encode(texts: Sequence[str]) -> np.ndarray:
        assert len(texts) == len(bare.records)
        return bare.embed(bare.prepared())

    encode(read_texts(options.texts))  # so that the padding is known
    counters = bare.engine.counters()
    programs = f"{counters.compilations} programs compiled in {seconds:.1f} thread-seconds before"
    return f"{programs}; padding {counters.padding_share:.1%}", encode


# --- sentence-transformers ------------------------------------------------------------------------------------------


def sentence_transformers(options: argparse.Namespace, dtype: str) -> tuple[str, Encode]:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(CORES)
    model = SentenceTransformer(options.model, device="cpu").to(getattr(torch, dtype))
    model.max_seq_length = MAX_LENGTH

    def way(rows: int) -> Encode:
        def encode(texts: Sequence[str]) -> np.ndarray:
            return model.encode(list(texts), batch_size=rows, normalize_embeddings=True, show_progress_bar=False)

        return encode

    return fastest({f"batches of {rows}": way(rows) for rows in SWEEP_ROWS}, read_texts(options.texts))


# --- engines that take tokens ---------------------------------------------------------------------------------------

Hidden = Callable[[list[list[int]]], np.ndarray]
"""Token ids of a batch to float32[B, longest, D]."""


def token_engine(options: argparse.Namespace, engines: Mapping[tuple[int, int], Hidden]) -> tuple[str, Encode]:
    """Tokenising, sorting by length, batches side by side, mean pooling: the same around either engine."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(options.model) / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.no_padding()

    def way(lanes: int, hidden: Hidden, rows: int) -> Encode:
        pool = ThreadPoolExecutor(lanes)

        def encode(texts: Sequence[str]) -> np.ndarray:
            tokens = [encoded.ids for encoded in tokenizer.encode_batch(list(texts))]
            order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
            batches = [order[start : start + rows] for start in range(0, len(order), rows)]
            vectors = pool.map(lambda batch: pooled(hidden, [tokens[i] for i in batch]), batches)
            return np.concatenate(list(vectors))[np.argsort(order)]

        return encode

    ways = {
        f"{lanes} x {threads} threads, batches of {rows}": way(lanes, hidden, rows)
        for (lanes, threads), hidden in engines.items()
        for rows in SWEEP_ROWS
    }
    return fastest(ways, read_texts(options.texts))


def pooled(hidden: Hidden, tokens: list[list[int]]) -> np.ndarray:
    """The mean over each text's own tokens, scaled to length 1: float32[B, D]."""
    values = hidden(tokens)
    lengths = np.array([len(ids) for ids in tokens])
    mask = (np.arange(values.shape[1]) < lengths[:, None]).astype(np.float32)
    total = np.einsum("bld,bl->bd", values, mask)
    return total / np.linalg.norm(total, axis=1, keepdims=True)


def onnxruntime(options: argparse.Namespace) -> tuple[str, Encode]:
    """Exported from torch, then fused by onnxruntime's own optimiser for BERT."""
    import onnxruntime as ort

    path = export_onnx(options.model, Path(options.work))

    def engine(threads: int) -> Hidden:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

        def hidden(tokens: list[list[int]]) -> np.ndarray:
            longest = max(map(len, tokens))
            ids = np.array([row + [0] * (longest - len(row)) for row in tokens], np.int64)
            mask = np.array([[1] * len(row) + [0] * (longest - len(row)) for row in tokens], np.int64)
            return session.run(["hidden"], {"input_ids": ids, "attention_mask": mask})[0]

        return hidden

    return token_engine(options, {(lanes, threads): engine(threads) for lanes, threads in LAYOUTS})


def export_onnx(model: str, work: Path) -> str:
    import torch
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoModel

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(model, attn_implementation="eager").eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    example = torch.ones(2, 8, dtype=torch.long)
    names = ("input_ids", "attention_mask", "hidden")
    module = Hidden()
    torch.onnx.export(
        module,
        (example, example),
        str(work / "exported.onnx"),
        input_names=list(names[:2]),
        output_names=["hidden"],
        dynamic_axes={name: {0: "rows", 1: "length"} for name in names},
        opset_version=17,
        dynamo=False,  # the graph that the optimiser below knows
    )
    heads, width = module.bert.config.num_attention_heads, module.bert.config.hidden_size
    fused = optimize_model(
        str(work / "exported.onnx"), model_type="bert", num_heads=heads, hidden_size=width, opt_level=0
    )
    fused.save_model_to_file(str(work / "fused.onnx"))
    return str(work / "fused.onnx")


def ctranslate2(options: argparse.Namespace) -> tuple[str, Encode]:
    import ctranslate2 as ct2
    from ctranslate2.converters import TransformersConverter

    path = str(Path(options.work) / "ctranslate2")
    TransformersConverter(options.model).convert(path, force=True)

    def engine(lanes: int, threads: int) -> Hidden:
        encoder = ct2.Encoder(path, device="cpu", compute_type="float32", inter_threads=lanes, intra_threads=threads)
        return lambda tokens: np.array(encoder.forward_batch(tokens).last_hidden_state)

    return token_engine(options, {layout: engine(*layout) for layout in LAYOUTS})


# --- serving --------------------------------------------------------------------------------------------------------

SIDES: dict[str, Callable[[argparse.Namespace], tuple[str, Encode]]] = {
    "batchinfer-auto": lambda options: ours(options, "auto"),
    "batchinfer-float32": lambda options: ours(options, "float32"),
    "sentence-transformers-float32": lambda options: sentence_transformers(options, "float32"),
    "sentence-transformers-bfloat16": lambda options: sentence_transformers(options, "bfloat16"),
    "onnxruntime-float32": onnxruntime,
    "ctranslate2-float32": ctranslate2,
}


def open_side(options: argparse.Namespace) -> tuple[Mapping[str, Any], Mapping[str, Callable[..., Mapping[str, Any]]]]:
    note, encode = SIDES[options.side](options)
    texts = read_texts(options.texts)
    vectors = encode(texts)

    def go() -> Mapping[str, Any]:
        return {"seconds": seconds_of(encode, texts)}

    def save(path: str) -> Mapping[str, Any]:
        np.save(path, np.asarray(vectors, np.float32))
        return {}

    return {"note": note}, {"go": go, "save": save}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=SIDES)
    for name in ("--texts", "--model", "--work"):
        parser.add_argument(name, required=True)
    options = parser.parse_args()
    serve(lambda: open_side(options))


if __name__ == "__main__":
    main()
