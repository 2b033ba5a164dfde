"""Tests of resampling at moved points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax import warping
from tests.reference import warp as reference


def _images(count=5, height=13, width=11, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  images = rng.uniform(size=(count, height, width, channels))
  return jnp.asarray(images, jnp.float32)


def test_warp_equals_loops():
  rng = np.random.default_rng(3)
  images = _images(4, 7, 11, 2)
  matrices = np.eye(2) + rng.normal(size=(4, 2, 2)) * 0.3
  offsets = rng.normal(size=(4, 2)) * 2
  moved = rng.normal(size=(4, 7, 11, 2))
  expected = reference.warp(np.asarray(images), matrices, offsets, moved)

  def run(m, o, d):
    m, o, d = (jnp.asarray(a, jnp.float32) for a in (m, o, d))
    return warping.warp(images, m, o, d)

  np.testing.assert_allclose(run(matrices, offsets, moved), expected, atol=2e-5)
  wrong = [
    (matrices.swapaxes(1, 2), offsets, moved),
    (np.linalg.inv(matrices), offsets, moved),
    (matrices, -offsets, moved),
    (matrices, offsets[:, ::-1], moved),
    (matrices, offsets, moved[..., ::-1]),
  ]
  for arguments in wrong:
    with pytest.raises(AssertionError):
      np.testing.assert_allclose(run(*arguments), expected, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_warp_of_one_pixel_wide_images(shape):
  images = _images(2, *shape)
  identity = jnp.broadcast_to(jnp.eye(2), (2, 2, 2))
  same = warping.warp(images, identity, jnp.zeros((2, 2)))
  np.testing.assert_allclose(same, images, atol=1e-6)


def test_warp_by_whole_pixels_repeats_the_border():
  images = _images(1, 6, 5)
  identity = jnp.eye(2).reshape(1, 2, 2)
  down = warping.warp(images, identity, jnp.array([[2.0, 0.0]]))
  np.testing.assert_allclose(down[:, 2:], images[:, :-2], atol=1e-6)
  np.testing.assert_allclose(down[:, 0], images[:, 0], atol=1e-6)


def test_affine_matrices_undo_enlarge_shear_rotate():
  rng = np.random.default_rng(0)
  values = {
    "rotation": rng.uniform(-1, 1, 5),
    "shear": rng.uniform(-0.5, 0.5, 5),
    "scale": rng.uniform(0.5, 2, 5),
    "stretch": rng.uniform(0.7, 1.4, 5),
  }
  backward = warping.affine_matrices(
    **{name: jnp.asarray(v, jnp.float32) for name, v in values.items()}
  )
  for i in range(5):
    forward = reference.forward_matrix(**{k: v[i] for k, v in values.items()})
    np.testing.assert_allclose(backward[i] @ forward, np.eye(2), atol=1e-5)


def test_positive_rotation_is_counter_clockwise():
  image = jnp.zeros((1, 9, 9, 1)).at[0, 4, 8].set(1.0)
  matrices = warping.affine_matrices(
    rotation=jnp.array([jnp.pi / 2]),
    shear=jnp.zeros(1),
    scale=jnp.ones(1),
    stretch=jnp.ones(1),
  )
  turned = warping.warp(image, matrices, jnp.zeros((1, 2)))
  np.testing.assert_allclose(turned[0, 0, 4, 0], 1.0, atol=1e-5)


def test_smooth_field_passes_through_its_knots():
  knots = jax.random.normal(jax.random.key(0), (2, 3, 3, 2))
  field = warping.smooth_field(knots, 9, 5)
  assert field.shape == (2, 9, 5, 2)
  np.testing.assert_allclose(field[:, ::4, ::2], knots, atol=1e-5)
  flat = warping.smooth_field(jnp.ones((1, 4, 4, 2)), 7, 8)
  np.testing.assert_allclose(flat, 1.0, atol=1e-5)
