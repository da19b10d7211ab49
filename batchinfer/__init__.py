"""batchinfer: run trained JAX models over large datasets, offline."""
