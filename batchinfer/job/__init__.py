"""What a user asks for: a YAML file, Python overlays, flags and params become one frozen `JobSpec`.

Layers, lowest first: defaults, the job file, overlays in order, flags in order. Imports neither jax nor pyarrow.
"""

from batchinfer.job.describe import describe
from batchinfer.job.load import LoadedJob, load, load_job, load_text
from batchinfer.job.overrides import Override
from batchinfer.job.schema import json_schema
from batchinfer.job.spec import JobSpec

__all__ = ["JobSpec", "LoadedJob", "Override", "describe", "json_schema", "load", "load_job", "load_text"]
