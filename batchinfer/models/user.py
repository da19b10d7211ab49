"""The user's own model: `package.module:factory` returning a Flax NNX or Linen module, with weights from anywhere.

An NNX module says itself which leaves it needs; for a Linen module the checkpoint does. Parameters may lie at the root
of the stored tree or inside a training state. Knows nothing of what the model computes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from batchinfer.errors import Fault, RestoreError, SpecError
from batchinfer.job import spec
from batchinfer.models.base import LoadedModel
from batchinfer.models.checkpoints import hf, orbax
from batchinfer.models.checkpoints.leaves import Leaf, Params, Placement, leaf_of, placed, sharding_of
from batchinfer.models.checkpoints.locate import TOKENIZER, CheckpointPlace, resolve
from batchinfer.models.modules import PureModule, take_apart
from batchinfer.models.tokenizer import TextTokenizer

PARENTS = ("", "params.", "batch_stats.", "model.", "state.", "state.params.", "model_state.", "variables.")
"""Where in a stored tree a parameter is looked for, first come first taken."""

TRAINING = ("opt_state", "optimizer", "step", "rng", "rngs", "ema_params")
"""Top-level parts of a training state that no model needs."""

Factory = Callable[[], Any]


def load_user_model(model: spec.Model, placement: Placement) -> LoadedModel:
    """Builds the module and restores it; without a checkpoint an NNX module keeps what its factory gave it.

    SpecError if the factory cannot be imported or run, RestoreError if the checkpoint does not fit.
    """
    factory = _factory(model)
    place = resolve(model.checkpoint, own_module=True) if model.checkpoint else None
    match _built(factory, model, abstract=place is not None):
        case nnx.Module() as module:
            pure = take_apart(module)
            params = _move(pure.leaves, placement) if place is None else _restore_nnx(place, pure, model, placement)
            apply = pure.apply
        case linen.Module() as module:
            if place is None:
                raise SpecError([Fault("", "model.checkpoint", "a Linen module needs one: it holds no parameters")])
            params = _restore_linen(place, model, placement)
            apply = _linen_apply(module)
        case other:
            message = f"gave a {type(other).__name__}, not a flax.nnx.Module or flax.linen.Module"
            raise SpecError([Fault("", "model.module", f"{model.module} {message}")])
    has_tokenizer = place is not None and (place.directory / TOKENIZER).is_file()
    return LoadedModel(
        name=str(model.module),
        apply=apply,
        params=params,
        parameter_count=sum(leaf.size for leaf in params.values()),
        parameter_bytes=sum(leaf.nbytes for leaf in params.values()),
        tokenizer=TextTokenizer.load(place.directory) if place is not None and has_tokenizer else None,
    )


def _factory(model: spec.Model) -> Factory:
    module_name, _, name = str(model.module).partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise SpecError([Fault("", "model.module", f"{model.module} cannot be imported: {error}")]) from error
    return lambda: factory(**model.kwargs)


def _built(factory: Factory, model: spec.Model, *, abstract: bool) -> Any:
    """What the factory gives; an NNX module as shapes only if `abstract`."""
    others: list[Any] = []

    def build() -> nnx.Module | None:
        made = factory()
        if isinstance(made, nnx.Module):
            return made
        others.append(made)  # Linen modules are plain descriptions: there are no arrays to trace
        return None

    try:
        module = nnx.eval_shape(build) if abstract else build()
    except (TypeError, ValueError) as error:
        raise SpecError([Fault("", "model.kwargs", f"{model.module} failed with them: {error}")]) from error
    return others[0] if others else module


# --- NNX ------------------------------------------------------------------------------------------------------------


def _restore_nnx(place: CheckpointPlace, pure: PureModule, model: spec.Model, placement: Placement) -> Params:
    wanted = placed({name: _cast(leaf, model) for name, leaf in pure.leaves.items()}, placement)

    def unneeded(name: str) -> bool:
        bare = next((name.removeprefix(parent) for parent in PARENTS[1:] if name.startswith(parent)), name)
        return name.split(".")[0] in TRAINING or name in pure.random or bare in pure.random

    if place.kind == "hf":
        with hf.Tensors(place) as tensors:
            return hf.restore(tensors, wanted, {name: hf.Recipe((name,)) for name in wanted}, unneeded)
    stored = orbax.stored_leaves(place)
    aliases = {name: _stored_name(name, stored) for name in wanted}
    return orbax.restore(place, wanted, unneeded, aliases)


def _stored_name(name: str, stored: Mapping[str, Any]) -> str:
    return next((parent + name for parent in PARENTS if parent + name in stored), name)


def _move(leaves: Mapping[str, jax.Array], placement: Placement) -> Params:
    return {name: jax.device_put(leaf, sharding_of(placement, name)) for name, leaf in leaves.items()}


# --- Linen ----------------------------------------------------------------------------------------------------------


def _restore_linen(place: CheckpointPlace, model: spec.Model, placement: Placement) -> Params:
    """Flat collections, "params.Dense_0.kernel" and so on, with the shapes that are stored."""
    if place.kind == "hf":
        with hf.Tensors(place) as tensors:
            names = _collections(tensors.leaves)
            wanted = placed({n: _cast(_shape(tensors.leaves[s]), model) for n, s in names.items()}, placement)
            recipes = {name: hf.Recipe((stored,)) for name, stored in names.items()}
            return hf.restore(tensors, wanted, recipes, harmless=lambda _: True)
    stored = {name: leaf for name, (_, leaf) in orbax.stored_leaves(place).items()}
    names = _collections(stored)
    if not names:
        raise RestoreError(place.name, ["holds no params collection"])
    wanted = placed({n: _cast(_shape(stored[s]), model) for n, s in names.items()}, placement)
    return orbax.restore(place, wanted, harmless=lambda _: True, aliases=names)


def _collections(stored: Mapping[str, Leaf]) -> dict[str, str]:
    """Name within the variables ("params.…", "batch_stats.…") to stored name.

    A tree without `params` is the params collection itself; in a training state, `params` may hold all the variables.
    """
    kept = {name: name for name in stored if name.split(".")[0] not in TRAINING}
    if not any(name.startswith("params.") for name in kept):
        return {f"params.{name}": name for name in kept}
    if any(name.startswith("params.params.") for name in kept):
        return {name.removeprefix("params."): name for name in kept if name.startswith("params.")}
    return {name: name for name in kept if "." in name}


def _linen_apply(module: linen.Module) -> Callable[[Params, Mapping[str, Any]], Any]:
    def apply(params: Params, inputs: Mapping[str, Any]) -> Any:
        return module.apply(orbax.nested(params), **inputs)

    return apply


# --- both -----------------------------------------------------------------------------------------------------------


def _shape(leaf: Leaf) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(leaf.dtype))


def _cast(leaf: Any, model: spec.Model) -> jax.ShapeDtypeStruct:
    """`model.dtype` for floats if the job names one; `auto` keeps the module's own (Linen: the stored) type."""
    as_asked = model.dtype != "auto" and leaf_of(leaf).kind == "float"
    return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(model.dtype) if as_asked else leaf.dtype)
