"""The only Mesh and the only PartitionSpecs: how arrays lie on the devices of this host.

One axis, `data`: parameters are on every device, a batch is split by rows. Knows nothing of models or batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from batchinfer.errors import Fault, SpecError

DATA = "data"


def make_mesh(data: int = -1) -> Mesh:
    """A mesh of `data` of this host's devices; -1: of all. Raises SpecError if there are not so many."""
    devices = jax.local_devices()
    count = len(devices) if data == -1 else data
    if not 1 <= count <= len(devices):
        have = f"{len(devices)} {devices[0].platform} device{'s' if len(devices) > 1 else ''}"
        message = f"asked to split batches across {data} devices but this host has {have}: use -1 for all"
        raise SpecError([Fault("", "model.mesh.data", message)])
    # Auto axes: jax.make_mesh's default, Explicit, breaks models that leave sharding to the compiler.
    return jax.make_mesh((count,), (DATA,), axis_types=(AxisType.Auto,), devices=devices[:count])


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device: parameters."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 split across the devices: inputs and outputs."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def split_by_rows(
    forward: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]], mesh: Mesh
) -> Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]:
    """`forward(params, inputs)` such that every device runs it on its own rows, as if it were the only device.

    So a row's result cannot depend on how many devices there are.
    """
    specs = (PartitionSpec(), PartitionSpec(DATA))
    return jax.shard_map(forward, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(DATA), check_vma=False)
