"""A Hugging Face directory to an Orbax checkpoint that gives the same results, bit for bit.

Weights keep the type they are stored in; what lies beside them (config, tokenizer, pooling) is copied.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

from batchinfer.errors import ConflictError, RestoreError
from batchinfer.models.bert_hf import bert_config, names_of, own_head, recipes, uniform_name, unused
from batchinfer.models.checkpoints import hf, orbax
from batchinfer.models.checkpoints.leaves import leaf_of
from batchinfer.models.checkpoints.locate import COMPANIONS, CONFIG, CheckpointPlace, resolve
from batchinfer.models.load import pure_bert
from batchinfer.models.precision import FLOAT32
from batchinfer.models.tokenizer import TextTokenizer


def convert(source: str, destination: str) -> CheckpointPlace:
    """Writes `destination`, whole or not at all, with the head the model was saved with. Gives the new checkpoint.

    RestoreError if the source is unusable, ConflictError if the destination exists.
    """
    place = resolve(source)
    target = Path(destination).expanduser().absolute()
    if place.kind != "hf":
        raise RestoreError(source, ["is an Orbax checkpoint already"])
    if target.exists():
        raise ConflictError(f"{destination}: exists; give a new directory, or remove it first")
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        _write(place, staged)
        staged.rename(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return resolve(destination)


def _write(place: CheckpointPlace, directory: Path) -> None:
    config = place.json(CONFIG)
    names = names_of(place.name, config)
    bert = bert_config(place.name, config, own_head(config))
    TextTokenizer.load(place.directory, model_vocabulary_size=bert.vocabulary)
    wanted = {name: leaf_of(leaf) for name, leaf in pure_bert(bert, FLOAT32).leaves.items()}
    cooked = recipes(bert, names)
    with hf.Tensors(place, lambda stored: uniform_name(stored, names)) as tensors:
        tensors.check(wanted, cooked, unused)
        orbax.save({name: cooked[name].cook(tensors.read) for name in wanted}, directory)
    for name in COMPANIONS:
        if (place.directory / name).is_file():
            (directory / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(place.directory / name, directory / name)
