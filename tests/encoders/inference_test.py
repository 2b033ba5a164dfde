"""Tests of facesiam_jax.encoders.inference."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from facesiam_jax.encoders import inference


class Flat(nn.Module):
  """Embeds by the pixels themselves."""

  @nn.compact
  def __call__(self, images, *, train=False, rows=None):
    return images.reshape(len(images), -1)


def _images():
  rng = np.random.default_rng(0)
  small = rng.integers(0, 256, (3, 4, 4, 1)).repeat(5, 1).repeat(5, 2)
  return small.astype(np.uint8)


def _embed(**settings):
  settings = {"standardize": {"kind": "fixed"}, "normalize": False} | settings
  return np.asarray(
    inference.embed(Flat(), {}, _images(), inference.Settings(**settings))
  )


def _pixels():
  return (_images() / 255.0 - 0.5) / 0.5


def test_without_views_it_is_the_encoder():
  expected = _pixels().reshape(3, -1)
  np.testing.assert_allclose(_embed(), expected, rtol=1e-5, atol=1e-6)


def test_mirror_is_the_mean_of_both():
  x = _pixels()
  expected = ((x + x[:, :, ::-1]) / 2).reshape(3, -1)
  np.testing.assert_allclose(_embed(mirror=True), expected, atol=1e-6)


def test_shift_is_the_mean_of_five_with_the_border_repeated():
  x = _pixels()
  padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
  moved = [
    padded[:, top : top + 20, left : left + 20]
    for top, left in ((2, 2), (0, 2), (4, 2), (2, 0), (2, 4))
  ]
  expected = np.mean(moved, axis=0).reshape(3, -1)
  np.testing.assert_allclose(_embed(shift=0.1), expected, atol=1e-5)


def test_scale_keeps_the_centre_and_a_flat_face():
  views = _embed(scale=0.1).reshape(3, 20, 20)
  assert not np.allclose(views, _pixels()[..., 0], atol=1e-3)
  flat = np.full((1, 20, 20, 1), 70, np.uint8)
  settings = inference.Settings({"kind": "fixed"}, False, scale=0.1)
  done = inference.embed(Flat(), {}, flat, settings)
  np.testing.assert_allclose(done, (70 / 255 - 0.5) / 0.5, atol=1e-5)


def test_unit_length_where_cosines_are_compared():
  for views in ({}, {"mirror": True}, {"shift": 0.1, "scale": 0.1}):
    norms = np.linalg.norm(_embed(normalize=True, **views), axis=1)
    np.testing.assert_allclose(norms, 1.0, rtol=1e-5)


def test_blocks_are_small_on_cpu_alone():
  assert inference.block_size("cpu") < inference.block_size("gpu")
  assert inference.block_size("gpu") == inference.block_size("tpu")
  assert inference.block_size() == inference.block_size("cpu")


def test_rows_are_independent_and_jit_agrees():
  settings = inference.Settings({"kind": "per_image"}, True, True, 0.1, 0.1)
  images = _images()
  run = lambda x: inference.embed(Flat(), {}, x, settings)
  whole = run(images)
  np.testing.assert_allclose(run(images[1:2])[0], whole[1], atol=1e-6)
  np.testing.assert_allclose(jax.jit(run)(images), whole, atol=1e-6)
  assert whole.dtype == jnp.float32
