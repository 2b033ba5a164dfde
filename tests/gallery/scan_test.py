"""Tests of the groups that one pass over the gallery looks at."""

import jax
import numpy as np
import pytest

from facesiam_jax.gallery import search

_jitted = jax.jit(search.top_k, static_argnames=("k", "metric", "block"))
_BLOCK = 2048


def _scores(kind, rng):
  """Scores of the rows, whole numbers with ties, that beat late or never."""
  size = 3 * _BLOCK + 5
  scores = rng.integers(0, 50, size)
  if kind == "rising":
    scores = np.arange(size) // 3
  if kind == "few":
    scores[_BLOCK + rng.integers(0, 2 * _BLOCK, 3)] = 99
  if kind == "some":
    scores[_BLOCK + 64 * np.arange(12)] = 60 + np.arange(12)
  if kind == "one_group":
    scores[_BLOCK + 64 : _BLOCK + 128] = 70
  if kind == "falling":
    scores = -np.arange(size)
  return scores.astype(np.float32)


@pytest.mark.parametrize("k", [1, 300])
@pytest.mark.parametrize(
  "kind", ["ties", "rising", "few", "some", "one_group", "falling"]
)
def test_nothing_that_beats_is_missed(kind, k):
  rng = np.random.default_rng(1)
  scores = _scores(kind, rng)
  valid = rng.random(len(scores)) < 0.9
  gallery = np.stack([scores, np.ones_like(scores)], axis=1)
  # What cannot match is above all that can.
  gallery[~valid, 0] = rng.choice([1e9, np.nan, np.inf], (~valid).sum())
  gallery[7], gallery[_BLOCK + 9] = np.nan, np.inf
  usable = valid & np.isfinite(gallery).all(axis=1)
  ids = np.arange(len(scores), dtype=np.int32)
  queries = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)
  found = _jitted(gallery, valid, ids, queries, k=k, metric="dot",
                  block=_BLOCK)  # fmt: skip
  for row, of_rows in enumerate((scores, -scores, np.ones_like(scores))):
    order = np.lexsort((ids, -of_rows))
    want = order[usable[order]][:k]
    np.testing.assert_array_equal(found.ids[row], want)
    np.testing.assert_array_equal(found.scores[row], of_rows[want])
