"""Finding checkpoints (locate.py, without jax) and restoring them straight into their shardings."""
