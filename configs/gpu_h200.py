"""Any job on NVIDIA H200s (141 GB each): `--config=configs/gpu_h200.py`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.model = ConfigDict()
    config.model.dtype = "bfloat16"  # of matrix products, sums stay float32; "float32" for results to the last digit
    config.model.mesh = ConfigDict()
    config.model.mesh.data = -1  # GPUs that batches are split across; -1: all of this host
    config.batching = ConfigDict()
    config.batching.max_tokens = 131072  # per batch and GPU; memory is the limit, running out drops it by one notch
    config.batching.window_rows = 65536  # rows sorted together; should fill several batches, host memory is the limit
    config.run = ConfigDict()
    config.run.units_in_flight = 4  # 1 to 64; enough that reading and writing never let the GPU wait
    return config
