"""Tests of facesiam_jax.mining."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import losses as reference

from facesiam_jax import mining


def _mine(distances, ids):
  return jax.jit(mining.batch_hard)(
    distances, ids, ids, anchor_rows=jnp.arange(len(ids))
  )


@pytest.mark.parametrize("seed", range(20))
def test_equals_loop(seed):
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, 4, 11).astype(np.int32)
  # Few distinct values, so that ties occur.
  distances = rng.integers(0, 9, (11, 11)).astype(np.float32)
  mined = _mine(distances, ids)
  positives, negatives = reference.batch_hard(distances, ids)
  both = (positives >= 0) & (negatives >= 0)
  np.testing.assert_array_equal(mined.weights, both)
  np.testing.assert_array_equal(
    np.asarray(mined.positives)[both], positives[both]
  )
  np.testing.assert_array_equal(
    np.asarray(mined.negatives)[both], negatives[both]
  )


def test_an_anchor_is_not_its_own_positive():
  ids = np.array([0, 0, 1], np.int32)
  distances = np.array([[9, 1, 5], [1, 9, 5], [5, 5, 9]], np.float32)
  mined = _mine(distances, ids)
  assert np.asarray(mined.positives)[:2].tolist() == [1, 0]


@pytest.mark.parametrize("ids", [[0, 0, 0], [0, 1, 2]])
def test_without_positives_or_negatives_nothing_counts(ids):
  mined = _mine(np.ones((3, 3), np.float32), np.array(ids, np.int32))
  assert np.asarray(mined.weights).tolist() == [0, 0, 0]


def test_shapes_are_checked():
  with pytest.raises(ValueError, match="distances must be"):
    mining.batch_hard(
      np.ones((3, 4), np.float32),
      np.zeros(3, np.int32),
      np.zeros(3, np.int32),
      anchor_rows=np.arange(3),
    )
