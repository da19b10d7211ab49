"""Safetensors files to arrays in their shardings, one leaf at a time: the host never holds a second copy of the model.

The only door to safetensors. How a model's parameters come from stored tensors is a `Recipe` per parameter; this file
knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from batchinfer.errors import RestoreError
from batchinfer.models.checkpoints.leaves import Leaf, Params, leaf_of, mismatches
from batchinfer.models.checkpoints.locate import CheckpointPlace

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "U32": "uint32",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recipe:
    """A parameter: stored tensors, each transposed ([out, in] to [in, out]) if so told, joined along the last axis."""

    sources: tuple[str, ...]
    transpose: bool = False

    def stored(self, leaf: Leaf) -> dict[str, Leaf]:
        """What each source must look like to give `leaf`."""
        part = (*leaf.shape[:-1], leaf.shape[-1] // len(self.sources)) if len(self.sources) > 1 else leaf.shape
        return {source: Leaf(part[::-1] if self.transpose else part, leaf.dtype) for source in self.sources}

    def cook(self, read: Callable[[str], np.ndarray]) -> np.ndarray:
        parts = [read(source).T if self.transpose else read(source) for source in self.sources]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


class Tensors:
    """The tensors of a checkpoint's safetensors files, under names made uniform by `rename`. A context manager."""

    def __init__(self, place: CheckpointPlace, rename: Callable[[str], str] = str):
        self.place = place
        self.leaves: dict[str, Leaf] = {}
        self._files: dict[str, tuple[Any, str]] = {}
        self._open = ExitStack()
        try:
            for path in place.weights:
                self._add(path, rename)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read(self, name: str) -> np.ndarray:
        file, stored_name = self._files[name]
        return file.get_tensor(stored_name)

    def check(self, wanted: Mapping[str, Leaf], recipes: Mapping[str, Recipe], harmless: Callable[[str], bool]) -> None:
        """RestoreError with every difference between what the recipes need and what is stored."""
        needed = {source: leaf for name in wanted for source, leaf in recipes[name].stored(wanted[name]).items()}
        problems = mismatches(needed, self.leaves, harmless)
        if problems:
            raise RestoreError(self.place.name, problems)

    def _add(self, path: Path, rename: Callable[[str], str]) -> None:
        try:
            file = self._open.enter_context(safe_open(path, framework="numpy"))
        except SafetensorError as error:
            problem = f"{path.name} is not a whole safetensors file ({error}); fetch it again"
            raise RestoreError(self.place.name, [problem]) from error
        for stored_name in file.keys():  # noqa: SIM118 (not a mapping)
            piece = file.get_slice(stored_name)
            name, dtype = rename(stored_name), str(piece.get_dtype())
            self.leaves[name] = Leaf(tuple(piece.get_shape()), DTYPES.get(dtype, dtype))
            self._files[name] = (file, stored_name)


def restore(
    tensors: Tensors,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    recipes: Mapping[str, Recipe],
    harmless: Callable[[str], bool],
) -> Params:
    """Every wanted leaf, converted to its type and put into its sharding. RestoreError as `Tensors.check`."""
    tensors.check({name: leaf_of(leaf) for name, leaf in wanted.items()}, recipes, harmless)
    return {
        name: jax.device_put(recipes[name].cook(tensors.read).astype(leaf.dtype, order="C"), leaf.sharding)
        for name, leaf in wanted.items()
    }
