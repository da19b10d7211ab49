"""A job's model section to a `LoadedModel`: finds the architecture, restores it onto the mesh, brings its tokenizer.

The one place that knows which architectures there are. Knows nothing of tasks beyond the kind of head they ask for.
Orbax and Linen are imported where they are needed: together they would add half a second to every start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from batchinfer.job import spec
from batchinfer.models.base import LoadedModel
from batchinfer.models.bert import Bert, BertConfig, NoHead
from batchinfer.models.bert_hf import AskedHead, bert_config, labels, names_of, recipes, uniform_name, unused
from batchinfer.models.checkpoints import hf
from batchinfer.models.checkpoints.leaves import Params, Placement, placed, sharding_of
from batchinfer.models.checkpoints.locate import CONFIG, POOLING, CheckpointPlace, resolve
from batchinfer.models.modules import PureModule, take_apart
from batchinfer.models.precision import Precision, resolve_dtype
from batchinfer.models.tokenizer import TextTokenizer

POOLING_MODES = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
}  # fmt: skip


def load_model(model: spec.Model, *, sharding: Placement, head: AskedHead = "none") -> LoadedModel:
    """Restores the model straight into `sharding` (one for all, or by dotted parameter name).

    `head`: what the task reads: hidden states, one answer per row, or one per token; a user's own module has its own.
    SpecError if the user's module cannot be made; RestoreError with every fault of the checkpoint or tokenizer.
    """
    if model.module is not None:
        from batchinfer.models.user import load_user_model

        return load_user_model(model, sharding)
    assert model.checkpoint is not None  # spec.Model asks for one of the two
    place = resolve(model.checkpoint)
    config = place.json(CONFIG)
    bert = bert_config(place.name, config, head)
    platform = next(iter(sharding_of(sharding, "embeddings.word").device_set)).platform
    pure = pure_bert(bert, resolve_dtype(model.dtype, platform))
    params = _restore(place, pure, bert, config, sharding)
    return LoadedModel(
        name=model.checkpoint,
        apply=pure.apply,
        params=params,
        parameter_count=sum(leaf.size for leaf in params.values()),
        parameter_bytes=sum(leaf.nbytes for leaf in params.values()),
        tokenizer=TextTokenizer.load(place.directory, model_vocabulary_size=bert.vocabulary),
        max_length=bert.max_length,
        labels=() if head == "none" else labels(config),
        pooling=_pooling(place),
        shares_rows=isinstance(bert.head, NoHead),
        flops_per_row=flops_per_row(bert, params),
    )


def pure_bert(config: BertConfig, precision: Precision) -> PureModule:
    """The BERT family's forward as a pure function, with the shapes of its parameters."""
    return take_apart(nnx.eval_shape(lambda: Bert(config, precision, rngs=nnx.Rngs(0))))


def flops_per_row(config: BertConfig, params: Mapping[str, Any]) -> Callable[[int], float]:
    """2NT + 4 L D T^2 for a row of T tokens, N the parameters outside the embedding tables."""
    dense = sum(leaf.size for name, leaf in params.items() if not name.startswith("embeddings."))
    return lambda tokens: 2.0 * dense * tokens + 4.0 * config.layers * config.width * tokens**2


def _restore(
    place: CheckpointPlace, pure: PureModule, bert: BertConfig, config: Mapping[str, Any], placement: Placement
) -> Params:
    wanted = placed(pure.leaves, placement)
    if place.kind == "orbax":
        from batchinfer.models.checkpoints import orbax

        without_head = isinstance(bert.head, NoHead)
        return orbax.restore(place, wanted, lambda name: without_head and name.startswith("head."))
    names = names_of(place.name, config)
    with hf.Tensors(place, lambda stored: uniform_name(stored, names)) as tensors:
        return hf.restore(tensors, wanted, recipes(bert, names), unused)


def _pooling(place: CheckpointPlace) -> str | None:
    modes = place.json(POOLING)
    return next((mode for key, mode in POOLING_MODES.items() if modes.get(key)), None)
