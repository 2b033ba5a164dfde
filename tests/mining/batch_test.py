"""Tests of mining at the edges: of the batch, of a person, of the window."""

import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax import mining


@pytest.mark.parametrize("padding, counts", [(0, [3, 0, 2]), (1, [3, 2, 0])])
def test_an_anchor_counts_where_its_own_column_does(padding, counts):
  """Anchors that are no column, column 0 and column 1, all of one person."""
  ids, weights = np.zeros(4, np.int32), np.ones(4, np.float32)
  weights[padding] = 0
  masks = mining.all_triplets(
    ids[:3], ids, anchor_rows=np.array([-1, 0, 1]), column_weights=weights
  )
  assert masks.positives.sum(axis=1).tolist() == counts


def test_the_last_person_has_no_positives_past_the_last_column():
  ids = np.array([1, 2, 2], np.int32)
  mined = mining.semi_hard(
    np.ones((3, 3), np.float32), ids, ids, anchor_rows=np.arange(3),
    max_positives=3,
  )  # fmt: skip
  assert mined.weights.tolist() == [[0, 0, 0], [1, 0, 0], [1, 0, 0]]
  assert mined.positives.tolist() == [[0, 0, 0], [2, 0, 0], [1, 0, 0]]


def test_rows_on_the_device_are_looked_at_too():
  ids = jnp.array([0, 0, 1])
  with pytest.raises(ValueError, match="anchor_rows must be .* 0 to 3"):
    mining.all_triplets(ids, ids, anchor_rows=jnp.array([0, 1, 3]))


@pytest.mark.parametrize("margin, weight", [(2.0, 0.0), (2.5, 1.0)])
def test_a_negative_at_the_end_of_the_window_is_outside(margin, weight):
  ids = np.array([7, 7, 8, 8], np.int32)
  mined = mining.semi_hard(
    np.array([[0.0, 1.0, 3.0, 4.0]], np.float32), ids[:1], ids,
    anchor_rows=np.array([0]), positive="hardest", margin=margin,
    fallback="none",
  )  # fmt: skip
  assert mined.weights.tolist() == [weight]
