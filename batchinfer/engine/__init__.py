"""The engine: examples in, numpy arrays out, one compiled program per bucket.

Knows nothing of tasks, records, files or units. `buckets` and `windows` are plain Python and numpy; jax is imported
by `mesh`, `compile` and `forward` only.
"""
