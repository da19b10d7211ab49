"""Any job on a CPU: `--config=configs/cpu.py`."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.model = ConfigDict()
    config.model.dtype = "auto"  # of matrix products: bfloat16 where this CPU has it and vectors stay close
    config.batching = ConfigDict()
    config.batching.max_tokens = 2048  # per batch; at least the longest text. More falls out of the cache
    config.batching.window_rows = 4096  # rows sorted together; more means less padding and more memory
    config.run = ConfigDict()
    config.run.units_in_flight = 2  # 1 to 64; one computes while another reads or writes
    return config
