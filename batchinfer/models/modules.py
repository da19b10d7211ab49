"""NNX modules as one pure function over a flat dict of parameters.

Knows nothing of checkpoints: it says which leaves a module has, and runs it with those it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from batchinfer.models.checkpoints.leaves import Params


@dataclass(frozen=True, slots=True)
class PureModule:
    """A module in evaluation mode, taken apart.

    `leaves`: every parameter, batch statistic and the like by dotted name: arrays, or shapes of an abstract module.
    `random`: names of its random state (dropout keys and counts): never restored, and the same in every call.
    """

    leaves: Mapping[str, Any]
    random: frozenset[str]
    _graph: nnx.GraphDef[nnx.Module]
    _paths: Mapping[str, tuple[Any, ...]]
    _random_state: nnx.State

    def apply(self, params: Params, inputs: Mapping[str, Any]) -> Any:
        """Calls the module with `inputs` by name; what it changes in itself is dropped. Pure and traceable."""
        state = nnx.from_flat_state({self._paths[name]: array for name, array in params.items()})
        return nnx.merge(self._graph, state, self._random_state)(**inputs)


def take_apart(module: nnx.Module) -> PureModule:
    """Of a module, or of what `nnx.eval_shape` gives for one. Switches it to evaluation mode."""
    module.eval()
    graph, random, state = nnx.split(module, nnx.RngState, ...)
    variables = {_name(path): (path, variable) for path, variable in nnx.to_flat_state(state)}
    return PureModule(
        leaves={name: variable.get_value() for name, (_, variable) in variables.items()},
        random=frozenset(_name(path) for path, _ in nnx.to_flat_state(random)),
        _graph=graph,
        _paths={name: path for name, (path, _) in variables.items()},
        _random_state=jax.tree.map(_constant, random),
    )


def _constant(leaf: Any) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.zeros(leaf.shape, leaf.dtype)


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path)
