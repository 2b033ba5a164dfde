"""Batches that take a batch-wise loss through all its branches.

Eight anchors among sixteen columns of width 5, always: one compilation.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numeric
import numpy as np

_RNG = np.random.default_rng(7)
COLUMNS = _RNG.normal(size=(16, 5)).astype(np.float32)
# Person 3 has one image; so has person 5 when column 14 is padding.
IDS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4, 0, 5, 5, 1], np.int32)
WEIGHTS = np.ones(16, np.float32)
WEIGHTS[[0, 14]] = 0.0
ROWS = np.array([0, 3, 5, 6, 9, 10, 12, 13], np.int32)


class Batch(NamedTuple):
  """What a batch-wise loss is called with, positional and by keyword."""

  anchors: Any
  anchor_ids: Any
  columns: Any
  column_ids: Any
  anchor_rows: Any
  column_weights: Any

  def give(self, loss, **settings):
    return loss(
      *self[:4],
      anchor_rows=self.anchor_rows,
      column_weights=self.column_weights,
      **settings,
    )


def batch(columns=COLUMNS, ids=IDS, weights=WEIGHTS, rows=ROWS):
  """The rows `rows` of the columns as anchors, padding set to NaN."""
  if weights is not None:
    columns = jnp.where(jnp.asarray(weights)[:, None] > 0, columns, jnp.nan)
  return Batch(columns[rows], ids[rows], columns, ids, rows, weights)


BATCHES = {
  "some padding, a lone image": batch(),
  "one person": batch(ids=np.zeros(16, np.int32)),
  "strangers": batch(ids=np.arange(16, dtype=np.int32)),
  "anchors that are no columns": Batch(
    _RNG.normal(size=(8, 5)).astype(np.float32),
    IDS[ROWS],
    COLUMNS,
    IDS,
    np.full(8, -1, np.int32),
    None,
  ),
}
# A miner has left about half of the pairs, and none of the third anchor's.
PAIR_MASK = _RNG.random((8, 16)) < 0.5
PAIR_MASK[2] = False


def mean(terms):
  """The weighted mean of (values, weights) in float64."""
  values, weights = (np.asarray(x, np.float64) for x in terms)
  return float(np.sum(values * weights) / max(np.sum(weights), 1.0))


@functools.cache
def _expected(reference, name, settings):
  return reference(*BATCHES[name], **dict(settings))


@functools.cache
def expected_gradient(reference, settings, held=False):
  """Of the mean, with respect to columns that are anchors as well."""
  fixed = {}
  if held:
    fixed = {"held": (COLUMNS[ROWS], COLUMNS)}

  def loss(columns):
    args = (columns[ROWS], IDS[ROWS], columns, IDS, ROWS, WEIGHTS)
    return mean(reference(*args, **dict(settings), **fixed))

  return numeric.gradient(loss, COLUMNS)


def gradient(loss, **settings):
  """Of the mean, by JAX, with NaN in the columns of padding."""

  def total(columns):
    return numeric.mean(batch(columns).give(loss, **settings))

  return jax.grad(total)(jnp.asarray(COLUMNS))


def assert_terms_close(terms, expected):
  """Values to 2e-5, weights exactly."""
  np.testing.assert_allclose(terms[0], expected[0], rtol=2e-5, atol=2e-6)
  np.testing.assert_array_equal(terms[1], expected[1])


def check(loss, reference, *, held=False, **settings):
  """Values, weights and gradient of a loss against its float64 loops."""
  frozen = tuple(settings.items())
  for name, case in BATCHES.items():
    terms = case.give(loss, **settings)
    assert_terms_close(terms, _expected(reference, name, frozen))
  numeric.assert_gradients_close(
    gradient(loss, **settings), expected_gradient(reference, frozen, held)
  )
