"""Checkpoints and tokenizers that are missing, partial or of another model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from embed_jobs import CHECKPOINT, GOOD, Job, lines
from safetensors.numpy import load_file, save_file

Break = Callable[[Path], None]


def remove(name: str) -> Break:
    return lambda checkpoint: (checkpoint / name).unlink()


def put(name: str, data: str) -> Break:
    return lambda checkpoint: (checkpoint / name).write_text(data) and None


def configure(**values: Any) -> Break:
    def change(checkpoint: Path) -> None:
        config = json.loads((checkpoint / "config.json").read_text())
        (checkpoint / "config.json").write_text(json.dumps(config | values))

    return change


def halve(checkpoint: Path) -> None:
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[: len(weights) // 2])


def lose_a_tensor(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["extra.thing"] = tensors.pop("embeddings.token_type_embeddings.weight")
    save_file(tensors, checkpoint / "model.safetensors")


INCOMPLETE: dict[str, tuple[Break, str]] = {
    "missing": (shutil.rmtree, ": does not exist\n"),
    "no tokenizer": (
        remove("tokenizer.json"),
        ": tokenizer.json is missing; save it with transformers' AutoTokenizer (use_fast=True)\n",
    ),
    "no config": (
        remove("config.json"),
        ": config.json is missing; it says what the model is (or name your own with model.module)\n",
    ),
    "no weights": (
        remove("model.safetensors"),
        ": no weights: expected model.safetensors, model.safetensors.index.json with its shards, "
        "or an Orbax checkpoint\n",
    ),
    "pickled weights": (
        lambda checkpoint: (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin") and None,
        ": only pytorch_model.bin is here; pickled and foreign weights are never loaded: convert once to "
        "safetensors with transformers' save_pretrained\n",
    ),
}
UNFIT: dict[str, tuple[Break, str]] = {
    "broken tokenizer": (put("tokenizer.json", "{"), "/tokenizer.json: cannot be read as a tokenizer: EOF while"),
    "broken config": (put("config.json", "{"), "/config.json: is not JSON: "),
    "weights cut off": (halve, ": model.safetensors is not a whole safetensors file ("),
    "another architecture": (
        configure(model_type="llama"),
        ": the model is llama; supported are bert, roberta, xlm-roberta, camembert, distilbert, or your own",
    ),
}


@pytest.fixture
def checkpoint(job: Job) -> Path:
    """A copy of the checkpoint, which the job names."""
    path = job.path("checkpoint")
    shutil.copytree(CHECKPOINT, path)
    job.settings["CHECKPOINT"] = str(path)
    job.write("jsonl", lines(GOOD))
    return path


@pytest.mark.parametrize("fault", INCOMPLETE)
def test_an_incomplete_checkpoint_ends_the_plan(before_work: Job, checkpoint: Path, fault: str) -> None:
    damage, words = INCOMPLETE[fault]
    damage(checkpoint)
    assert before_work.run() == (2, f"{checkpoint}{words}")
    assert not before_work.output.exists()


@pytest.mark.parametrize("fault", UNFIT)
def test_a_checkpoint_that_cannot_be_used_is_one_line(job: Job, checkpoint: Path, fault: str) -> None:
    damage, words = UNFIT[fault]
    damage(checkpoint)
    code, err = job.run()
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"{checkpoint}{words}")
    assert not list(job.output.rglob("*.json"))


def test_a_partial_checkpoint_names_every_tensor(job: Job, checkpoint: Path) -> None:
    lose_a_tensor(checkpoint)
    configure(intermediate_size=44)(checkpoint)
    code, err = job.run()
    assert code == 2
    assert set(err.splitlines()) == {
        f"{checkpoint}: {problem}"
        for problem in (
            "missing embeddings.token_type_embeddings.weight (float32[2, 24])",
            "extra extra.thing (float32[2, 24]): the model has no such parameter",
            *(
                f"shape of encoder.layer.{layer}.{name} is {stored}, the model's is {wanted}"
                for layer in (0, 1)
                for name, stored, wanted in (
                    ("intermediate.dense.weight", [40, 24], [44, 24]),
                    ("intermediate.dense.bias", [40], [44]),
                    ("output.dense.weight", [24, 40], [24, 44]),
                )
            ),
        )
    }


def test_a_package_that_is_not_installed(before_work: Job) -> None:
    before_work.write("jsonl", lines(GOOD))
    before_work.settings["CHECKPOINT"] = "package://no_such_package/model"
    assert before_work.run() == (
        2,
        "package://no_such_package/model: package no_such_package is not installed in this environment\n",
    )


def test_a_longer_text_than_the_model_reads_is_not_promised(job: Job) -> None:
    job.write("jsonl", lines(GOOD))
    assert job.run("--config.task.max_length=41") == (
        2,
        "task.max_length: is 41, but the model reads at most 40 tokens\n",
    )
    assert job.run("--config.task.max_length=2")[1] == "task.max_length: is 2, but a text needs 3 tokens at least\n"
