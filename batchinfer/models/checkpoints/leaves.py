"""Leaves of a parameter tree by dotted name, and everything in which what is wanted and what is stored differ.

In memory a parameter tree is a flat dict from dotted name ("layers.0.up.kernel") to array. Knows no file formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax

Params = dict[str, jax.Array]
Placement = jax.sharding.Sharding | Callable[[str], jax.sharding.Sharding]
"""Where parameters go: all alike, or each by its dotted name."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """Shape and type (numpy's name for it) of one array; equal kinds ("float", "int", ...) convert into each other."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def kind(self) -> Literal["float", "int", "bool", "other"]:
        match self.dtype:
            case "float16" | "bfloat16" | "float32" | "float64":
                return "float"
            case "bool":
                return "bool"
            case name if name.startswith(("int", "uint")):
                return "int"
            case _:
                return "other"

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def leaf_of(array: Any) -> Leaf:
    """Of anything with `shape` and `dtype`."""
    return Leaf(tuple(array.shape), str(array.dtype))


def mismatches(wanted: Mapping[str, Leaf], stored: Mapping[str, Leaf], harmless: Callable[[str], bool]) -> list[str]:
    """One line for each leaf that is missing, extra (unless `harmless(name)`), misshapen or of another kind of type."""
    problems = [f"missing {name} ({leaf})" for name, leaf in wanted.items() if name not in stored]
    for name, leaf in stored.items():
        want = wanted.get(name)
        if want is None:
            if not harmless(name):
                problems.append(f"extra {name} ({leaf}): the model has no such parameter")
        elif leaf.shape != want.shape:
            problems.append(f"shape of {name} is {list(leaf.shape)}, the model's is {list(want.shape)}")
        elif leaf.kind != want.kind or leaf.kind == "other":
            problems.append(f"type of {name} is {leaf.dtype}, the model's is {want.dtype}")
    return sorted(problems)


def sharding_of(placement: Placement, name: str) -> jax.sharding.Sharding:
    return placement if isinstance(placement, jax.sharding.Sharding) else placement(name)


def placed(leaves: Mapping[str, Any], placement: Placement) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and types with their shardings: what a restore is asked for."""
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding_of(placement, name))
        for name, leaf in leaves.items()
    }
