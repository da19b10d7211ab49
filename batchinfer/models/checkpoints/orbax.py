"""Orbax checkpoints to arrays in their shardings, whole or in part, and back. The only door to Orbax.

A stored tree may be a bare parameter tree or a training state around one; leaves go by dotted names. Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from batchinfer.errors import RestoreError
from batchinfer.models.checkpoints.leaves import Leaf, Params, leaf_of, mismatches
from batchinfer.models.checkpoints.locate import CheckpointPlace

TREE = "params"
"""Our own checkpoints keep the tree in this subdirectory."""

Found = dict[str, tuple[tuple[Any, ...], Leaf]]
"""Dotted name to the place in the stored tree and what lies there."""


def save(params: Mapping[str, Any], directory: Path) -> None:
    """Writes flat `params` as a nested tree into a directory that does not exist yet; whole or not at all."""
    ocp.save(str(directory.absolute()), nested(params), checkpointable_name=TREE)


def stored_leaves(place: CheckpointPlace) -> Found:
    """Every array in the checkpoint."""
    return _found(place, _metadata(place))


def restore(
    place: CheckpointPlace,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    harmless: Callable[[str], bool],
    aliases: Mapping[str, str] | None = None,
) -> Params:
    """Every wanted leaf in its type and sharding; the rest of the tree is not read.

    `aliases`: wanted name to stored name, where they differ. RestoreError with every difference.
    """
    tree = _metadata(place)
    found = _found(place, tree)
    stored_as = {name: (aliases or {}).get(name, name) for name in wanted}
    problems = mismatches(
        {stored_as[name]: leaf_of(leaf) for name, leaf in wanted.items()},
        {name: leaf for name, (_, leaf) in found.items()},
        harmless,
    )
    if problems:
        raise RestoreError(place.name, problems)
    at = {found[stored_as[name]][0]: leaf for name, leaf in wanted.items()}
    restored = _load(place, jax.tree_util.tree_map_with_path(lambda path, _: at.get(path, ocp.PLACEHOLDER), tree))
    leaves = dict(jax.tree_util.tree_leaves_with_path(restored))
    return {name: leaves[found[stored_as[name]][0]] for name in wanted}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": x} to {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def dotted(path: tuple[Any, ...]) -> str:
    """A jax key path as a dotted name."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _found(place: CheckpointPlace, tree: Any) -> Found:
    """The arrays of a metadata tree. Saved NNX states have an extra level "value" under each variable: left out."""
    found: Found = {}
    for path, entry in jax.tree_util.tree_leaves_with_path(tree):
        if not isinstance(entry, int | float | str | bytes | np.generic):  # a training state's step and the like
            found[dotted(path).removesuffix(".value")] = (path, leaf_of(entry))
    if not found:
        raise RestoreError(place.name, ["holds no arrays that can be read; copy or save it again"])
    return found


def _metadata(place: CheckpointPlace) -> Any:
    try:
        return ocp.metadata(str(place.directory), checkpointable_name=place.tree).metadata
    except Exception as error:  # Orbax raises bare ones too
        raise _unreadable(place, error) from error


def _load(place: CheckpointPlace, abstract: Any) -> Any:
    try:
        return ocp.load(str(place.directory), abstract, checkpointable_name=place.tree)
    except Exception as error:  # as above
        raise _unreadable(place, error) from error


def _unreadable(place: CheckpointPlace, error: Exception) -> RestoreError:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return RestoreError(place.name, [f"cannot be read as an Orbax checkpoint ({first_line}); copy or save it again"])
