"""Tests of what all losses ask of their arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax.losses import _checks

ROWS = jnp.zeros((3, 2))
INT32 = np.iinfo(np.int32)


def _labels(x, **kwargs):
  return _checks.labels("ids", x, "rows", ROWS, **kwargs)


def test_above_leaves_out_its_bound():
  _checks.above("margin", 1e-9, 0)
  for value in (0, -1, np.nan):
    with pytest.raises(
      ValueError, match=f"margin must be positive, got {value}"
    ):
      _checks.above("margin", value, 0)
  with pytest.raises(ValueError, match="margin must be above 1, got 1"):
    _checks.above("margin", 1, 1)


def test_within_holds_its_bounds():
  for value in (-1, 0, 2):
    _checks.within("share", value, -1, 2)
  for value in (-1.001, 2.001, np.nan):
    with pytest.raises(
      ValueError, match=f"share must be from -1 to 2.*{value}"
    ):
      _checks.within("share", value, -1, 2)


@pytest.mark.parametrize(
  "x, rank, message",
  [
    (np.ones(3, np.float32), 2, r"x must have shape \[B, D\], got \(3,\)"),
    (np.ones((3, 1), np.float32), 1, r"x must have shape \[B\], got \(3, 1\)"),
    (np.ones(3, np.int32), 1, "x must be floating point, got dtype int32"),
    (np.ones(0, np.float32), 1, r"x must not be empty, got shape \(0,\)"),
    (np.ones((3, 0), np.float32), 2, "x must not be empty"),
  ],
)
def test_floats_are_refused_by_name(x, rank, message):
  with pytest.raises(ValueError, match=message):
    _checks.floats("x", x, rank)


def test_floats_become_float32():
  assert _checks.floats("x", jnp.ones((1, 1), jnp.bfloat16), 2).dtype == (
    jnp.float32
  )
  assert _checks.floats("x", jnp.ones(1), 1).shape == (1,)


def test_shapes_must_be_alike():
  _checks.like("x", ROWS, "y", ROWS)
  with pytest.raises(
    ValueError, match=r"x and y must .* \(3, 2\) and \(3, 1\)"
  ):
    _checks.like("x", ROWS, "y", ROWS[:, :1])


def test_weights_are_one_a_row():
  assert _checks.weights("w", None, "rows", ROWS).tolist() == [1, 1, 1]
  found = _checks.weights("w", [1, 0, 2], "rows", ROWS)
  assert found.dtype == jnp.float32 and found.tolist() == [1, 0, 2]
  for wrong in ([1, 2], np.ones((3, 2)), np.ones((3, 1))):
    with pytest.raises(ValueError, match="w must hold one weight for each row"):
      _checks.weights("w", wrong, "rows", ROWS)


@pytest.mark.parametrize(
  "x, message",
  [
    ([1, 2], r"one label for each row of rows, got \(2,\) for \(3, 2\)"),
    (np.zeros((3, 2), int), "one label for each row"),
    ([1.0, 2.0, 3.0], "ids must be integers, got dtype float32"),
    ([True, False, True], "ids must be integers, got dtype bool"),
  ],
)
def test_labels_are_refused_by_name(x, message):
  with pytest.raises(ValueError, match=message):
    _labels(x)


def test_labels_hold_their_bounds():
  assert _labels([0, 5, 3], low=0, high=5).dtype == jnp.int32
  for wrong in (-1, 6):
    with pytest.raises(
      ValueError, match=f"ids must be from 0 to 5, got {wrong}"
    ):
      _labels([2, wrong, 3], low=0, high=5)
    with pytest.raises(ValueError, match=f"got {wrong}"):
      _labels(jnp.array([2, wrong, 3]), low=0, high=5)


def test_labels_that_int32_would_cut_are_refused():
  ends = np.array([INT32.min, 0, INT32.max])
  np.testing.assert_array_equal(_labels(ends), ends)
  for wrong in (2**31, -(2**31) - 1):
    with pytest.raises(ValueError, match=f"from .* to .*, got {wrong}"):
      _labels(np.array([0, wrong, 1]))


def test_labels_of_padding_may_be_anything():
  ids = np.array([0, 99, 1])
  kept = _labels(ids, low=0, high=5, used=np.array([1.0, 0.0, 0.5]))
  assert kept.tolist() == ids.tolist()
  with pytest.raises(ValueError, match="got 99"):
    _labels(ids, low=0, high=5, used=np.array([0.0, 1.0, 0.0]))


def test_values_that_are_not_known_are_not_looked_at():
  bounds = {"low": 0, "high": 5}
  ids = np.array([0, 99, 1])
  assert jax.jit(lambda x: _labels(x, **bounds))(ids)[1] == 99
  # Which rows count is not known either.
  mask = lambda used: _labels(ids, used=used, **bounds)
  assert jax.jit(mask)(np.ones(3))[1] == 99
