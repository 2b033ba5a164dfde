"""A batch on which every branch of a miner shows, and how to call miners."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

# Person 4 has one image; rows are in no order; the last anchor is no column.
COLUMN_IDS = np.array([2, 1, 2, 3, 1, 2, 4, 3, 3, 2, 1, 3, 2], np.int32)
ROWS = np.array([5, 0, 10, 6, 3, 12, 8, -1], np.int32)
_PADDING = (4, 8, 9)


class Batch(NamedTuple):
  """What a miner is called with, as the reference loops read it."""

  distances: np.ndarray
  anchor_ids: np.ndarray
  column_ids: np.ndarray
  anchor_rows: np.ndarray
  column_weights: np.ndarray

  def labels(self):
    return {
      "anchor_rows": self.anchor_rows,
      "column_weights": self.column_weights,
    }


def make_batch(seed, *, values=None):
  """A batch with padding of NaN; `values` draws distances [b, B]."""
  rng = np.random.default_rng(seed)
  shape = (len(ROWS), len(COLUMN_IDS))
  # Few distinct values, so that ties occur and windows are empty and full.
  if values is None:
    distances = rng.integers(0, 12, shape).astype(np.float32)
  else:
    distances = values(rng, shape).astype(np.float32)
  ids = np.where(ROWS >= 0, COLUMN_IDS[ROWS], 3).astype(np.int32)
  weights = np.ones(shape[1], np.float32)
  weights[list(_PADDING)] = 0
  distances[:, list(_PADDING)] = np.nan
  return Batch(distances, ids, COLUMN_IDS, ROWS, weights)


def run(function, batch, **options):
  """Calls a miner as a user does, under jit."""
  call = jax.jit(partial(function, **options))
  return call(
    batch.distances, batch.anchor_ids, batch.column_ids, **batch.labels()
  )


def assert_triplets(mined, expected):
  """Weights everywhere; indices where there is such a triplet at all.

  An index of a triplet of weight 0 is compared too, except where the
  reference says -1: an anchor may have a positive and no negative.
  """
  stated = expected[..., 0] >= 0
  np.testing.assert_array_equal(mined.weights, expected[..., 2])
  for name, column in (("positives", 0), ("negatives", 1)):
    found = np.where(stated, np.asarray(getattr(mined, name)), -1)
    np.testing.assert_array_equal(found, expected[..., column], err_msg=name)


def make_embeddings(seed, batch):
  """(anchors [b, 3], columns [B, 3]) of small integers; padding is NaN."""
  rng = np.random.default_rng(seed)
  columns = rng.integers(-4, 5, (len(batch.column_ids), 3)).astype(np.float32)
  columns[batch.column_weights == 0] = np.nan
  anchors = columns[batch.anchor_rows]
  anchors[batch.anchor_rows < 0] = rng.integers(-4, 5, 3)
  return anchors, columns


def sphere_distances(rng, shape):
  """Distances of unit vectors, some below the cutoff, some beyond it all."""
  distances = rng.uniform(0.2, 1.7, shape)
  distances[0] = np.maximum(distances[0], 1.5)  # none near enough
  return distances
