"""Makes data/digits.parquet: the 500 images of scikit-learn's digits that training never saw.

    python jobs/digits/make_digits.py data/digits.parquet

Columns: id (int64, the image's place in the data set), pixels (64 numbers 0 to 16, row by row), target (the digit).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

HELD_OUT = 500
SPLIT_SEED = 0


@dataclass(frozen=True, slots=True)
class Digits:
    """Some of the images. `ids: int64[N]`, `pixels: float32[N, 64]` from 0 to 16, `targets: int64[N]`."""

    ids: np.ndarray
    pixels: np.ndarray
    targets: np.ndarray


def split() -> tuple[Digits, Digits]:
    """1,297 images to train on and 500 held out; always the same."""
    pixels, targets = load_digits(return_X_y=True)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(targets))

    def some(ids: np.ndarray) -> Digits:
        return Digits(ids.astype(np.int64), pixels[ids].astype(np.float32), targets[ids].astype(np.int64))

    return some(np.sort(order[HELD_OUT:])), some(np.sort(order[:HELD_OUT]))


def table(digits: Digits) -> pa.Table:
    pixels = pa.array(list(digits.pixels), pa.list_(pa.float32()))
    return pa.table({"id": digits.ids, "pixels": pixels, "target": digits.targets})


def main(argv: Sequence[str]) -> int:
    if len(argv) != 1:
        print("usage: make_digits.py PATH", file=sys.stderr)
        return 2
    path = Path(argv[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    _, held_out = split()
    pq.write_table(table(held_out), temporary)
    os.replace(temporary, path)
    print(f"{len(held_out.ids)} images in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
