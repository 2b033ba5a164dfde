"""Templates of random numbers and a store to put them into."""

import numpy as np

from facesiam_jax.gallery.records import Templates
from facesiam_jax.gallery.store import Store

DIM = 6


def templates(count, seed, dim=DIM):
  """Returns templates of random numbers, from files SEED-0.jpg and so on."""
  rng = np.random.default_rng(seed)
  rows = rng.normal(size=(count, dim)).astype(np.float32)
  digests = [bytes(rng.integers(0, 256, 32, np.uint8)) for _ in range(count)]
  return Templates(rows, digests, [f"{seed}-{i}.jpg" for i in range(count)])


def create(path, dim=DIM, **options):
  """Opens a gallery file, making it where there is none."""
  return Store.create(
    path, fingerprint="f" * 64, dim=dim, metric="cosine", **options
  )
