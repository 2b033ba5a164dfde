"""Tests of facesiam_jax.glasses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax import glasses

ROWS = np.arange(12, dtype=np.int32)


def _faces(value=0.6):
  return jnp.full((12, 64, 64, 1), value, jnp.float32)


def _draw(images, probability=1.0, rows=ROWS, seed=0):
  return glasses.draw_glasses(
    images, jax.random.key(seed), rows, probability=probability
  )


def test_probability_zero_changes_no_bit():
  images = _faces()
  assert _draw(images, 0.0) is images


def test_rims_go_round_the_eyes_and_leave_the_mouth():
  changed = np.abs(np.asarray(_draw(_faces()) - _faces()))[..., 0]
  assert np.all(changed.max(axis=(1, 2)) > 0.02)
  # Dark or half transparent rims left, right, above and below each pupil.
  mean = changed.mean(axis=0)
  for column in (16, 48):
    assert mean[17, column - 14 : column - 6].max() > 0.02
    assert mean[17, column + 6 : column + 14].max() > 0.02
    assert mean[5:14, column].max() > 0.02
    assert mean[22:32, column].max() > 0.02
  assert mean[40:].max() < 1e-3, "the mouth must stay as it is"
  values = np.asarray(_draw(_faces()))
  assert values.min() >= 0 and values.max() <= 1


def test_a_row_depends_on_its_number_alone():
  images = _faces()
  whole = np.asarray(_draw(images, 0.5))
  part = np.asarray(_draw(images[:4], 0.5, ROWS[5:9]))
  np.testing.assert_array_equal(part, whole[5:9])
  assert not np.array_equal(whole[0], whole[1])
  assert not np.array_equal(whole, _draw(images, 0.5, seed=1))


def test_the_share_of_faces_is_the_probability():
  images = jnp.full((2000, 8, 8, 1), 0.6, jnp.float32)
  rows = np.arange(2000, dtype=np.int32)
  drawn = np.asarray(_draw(images, 0.3, rows))
  share = np.mean(np.any(drawn != 0.6, axis=(1, 2, 3)))
  assert abs(share - 0.3) < 0.04  # four standard deviations


def test_eyes_can_be_elsewhere():
  moved = glasses.draw_glasses(
    _faces(),
    jax.random.key(0),
    ROWS,
    probability=1.0,
    eyes=((0.3, 0.7), (0.7, 0.7)),
  )
  changed = np.abs(np.asarray(moved) - 0.6).mean(axis=(0, 3))
  assert changed[:28].max() < 1e-3 < changed[38:52].max()


def test_bad_arguments_are_refused():
  for probability in (-0.1, 1.1):
    with pytest.raises(ValueError, match="probability must be in 0..1"):
      _draw(_faces(), probability)
  assert _draw(_faces()[:0], 0.5, ROWS[:0]).shape == (0, 64, 64, 1)
