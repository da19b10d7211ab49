"""Flax models, their tokenizers and checkpoints: from a job's model section to one pure function (see load.py)."""
