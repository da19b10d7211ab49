"""Any job on TPU v5e chips (16 GB each): `--config=configs/tpu_v5e.py`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.model = ConfigDict()
    config.model.dtype = "bfloat16"  # what the matrix unit multiplies natively; "float32" takes several passes
    config.model.mesh = ConfigDict()
    config.model.mesh.data = -1  # chips that batches are split across; -1: all of this host
    config.batching = ConfigDict()
    config.batching.max_tokens = 32768  # per batch and chip; memory is the limit, running out drops it by one notch
    config.batching.window_rows = 32768  # rows sorted together; should fill several batches, host memory is the limit
    config.run = ConfigDict()
    config.run.units_in_flight = 4  # 1 to 64; enough that reading and writing never let the chips wait
    return config
