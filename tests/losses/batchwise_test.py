"""Tests of the softmax losses that are not common to all over a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.loss_batches import BATCHES, COLUMNS, IDS

from facesiam_jax import losses

CASE = BATCHES["some padding, a lone image"]
PAIRS = np.repeat(np.arange(8, dtype=np.int32), 2)


def test_keep_and_drop_differ_with_three_images_and_not_with_two():
  values = {}
  rows = np.arange(16)
  for word in ("keep", "drop"):
    loss = jax.jit(
      lambda ids, word=word: losses.nt_xent(
        COLUMNS, ids, COLUMNS, ids, anchor_rows=rows, other_positives=word
      )[0]
    )
    for images, ids in (("three", IDS), ("two", PAIRS)):
      values[images, word] = loss(ids)
  np.testing.assert_allclose(
    values["two", "keep"], values["two", "drop"], rtol=1e-5, atol=1e-6
  )
  more = np.isin(IDS, [0, 1, 2])  # the people with three images or more
  assert np.all(values["three", "keep"][more] > values["three", "drop"][more])


def test_supcon_is_nt_xent_that_keeps_other_positives():
  expected = CASE.give(losses.nt_xent, temperature=0.2, other_positives="keep")
  actual = CASE.give(losses.supcon, temperature=0.2)
  np.testing.assert_array_equal(actual[0], expected[0])
  np.testing.assert_array_equal(actual[1], expected[1])


def test_a_sharp_temperature_cannot_overflow():
  values, _ = CASE.give(losses.supcon, temperature=1e-3)
  assert np.all(np.isfinite(values)) and np.max(values) > 100


def test_defaults():
  for name, settings in (
    ("supcon", {"temperature": 0.1}),
    ("nt_xent", {"temperature": 0.1, "other_positives": "keep"}),
    ("n_pair", {"norm_penalty": 0.002}),
  ):
    loss = getattr(losses, name)
    np.testing.assert_array_equal(
      CASE.give(loss)[0], CASE.give(loss, **settings)[0]
    )


def test_n_pair_penalty_is_a_quarter_of_both_squared_norms():
  """As TensorFlow has it: c/4 (mean |a|^2 + mean |p|^2)."""
  x, ids = jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([4, 4])
  for penalty, expected in ((0.0, 0.0), (0.4, 0.4 / 4 * (5 + 9))):
    loss = lambda x, penalty=penalty: losses.n_pair(
      x, ids, x, ids, anchor_rows=jnp.arange(2), norm_penalty=penalty
    )
    np.testing.assert_allclose(jax.jit(loss)(x)[0], [expected] * 2, rtol=1e-6)


@pytest.mark.parametrize(
  "name, settings, match",
  [
    ("supcon", {"temperature": 0.0}, "temperature must be positive, got 0.0"),
    ("nt_xent", {"temperature": -1}, "temperature must be positive, got -1"),
    ("nt_xent", {"temperature": float("nan")}, "temperature .* got nan"),
    ("nt_xent", {"other_positives": "some"}, "other_positives .* got 'some'"),
    ("n_pair", {"norm_penalty": -0.1}, "norm_penalty must be .* got -0.1"),
  ],
)
def test_bad_settings_are_refused(name, settings, match):
  with pytest.raises(ValueError, match=match):
    CASE.give(getattr(losses, name), **settings)
