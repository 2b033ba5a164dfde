"""Tests of facesiam_jax.encoders.gabor against direct convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import gabor as reference

from facesiam_jax.encoders import gabor

SETTINGS = {
  "wavelengths": (2.5, 5.0),
  "num_orientations": 3,
  "cell": 4,
  "spacing": 2,
}
FACES = np.random.default_rng(0).normal(size=(2, 12, 9, 1)).astype(np.float32)


def _magnitudes(images, **changes):
  return gabor.gabor_magnitudes(images, **{**SETTINGS, **changes})


def _expected(image, **changes):
  settings = {**SETTINGS, **changes}
  return reference.gabor_magnitudes(np.asarray(image, np.float64), **settings)


@pytest.mark.parametrize("spacing, cell", [(2, 4), (1, 3), (3, 3)])
def test_magnitudes_equal_direct_convolution(spacing, cell):
  changes = {"spacing": spacing, "cell": cell}
  maps = _magnitudes(FACES, **changes)
  for image, one in zip(FACES, maps, strict=True):
    expected = _expected(image[..., 0], **changes)
    np.testing.assert_allclose(one, expected, atol=2e-4)


@pytest.mark.parametrize(
  "wrong",
  [
    {"wavelengths": (2.5, 5.5)},
    {"wavelengths": (5.0, 2.5)},
    {"num_orientations": 4},
    {"transposed": True},
  ],
)
def test_wrong_filters_are_told_apart(wrong):
  wrong = dict(wrong)
  image = FACES[0, :9]
  if wrong.pop("transposed", False):
    maps = _magnitudes(image.transpose(1, 0, 2)[None])[0].transpose(1, 0, 2)
  else:
    maps = _magnitudes(image[None], **wrong)[0][..., :6]
  expected = _expected(image[..., 0])
  assert np.abs(np.asarray(maps) - expected).max() > 0.1


def test_contrast_and_brightness_do_not_matter():
  """Up to what leaks of brightness through the shortest filters."""
  maps = _magnitudes(FACES)
  np.testing.assert_allclose(_magnitudes(5 * FACES), maps, atol=0.02)
  np.testing.assert_allclose(_magnitudes(FACES + 0.1), maps, atol=0.05)


def test_channels_are_measured_apart():
  both = np.concatenate([FACES[:1], FACES[1:]], axis=-1)
  maps = _magnitudes(both)
  expected = [_magnitudes(FACES[i : i + 1]) for i in (0, 1)]
  np.testing.assert_allclose(maps, np.concatenate(expected, -1), atol=1e-5)


def test_flat_images_give_zeros_and_finite_gradients():
  flat = jnp.zeros((1, 12, 12, 1))
  np.testing.assert_allclose(_magnitudes(flat), 0.0, atol=1e-6)
  gradient = jax.grad(lambda x: jnp.sum(jnp.square(_magnitudes(x))))(flat)
  assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
  "images, changes, match",
  [
    (FACES[0], {}, r"\[B, H, W, C\]"),
    (FACES, {"wavelengths": ()}, "wavelengths must be 2 pixels"),
    (FACES, {"wavelengths": (1.0,)}, "wavelengths must be 2 pixels"),
    (FACES, {"num_orientations": 0}, "num_orientations"),
    (FACES, {"cell": 3}, "cell must be a multiple of spacing"),
    (FACES[:, :, :7], {}, "images of 8 pixels or more"),
    (FACES, {"spacing": 0}, "cell must be a multiple of spacing"),
  ],
)
def test_bad_settings_are_refused(images, changes, match):
  with pytest.raises(ValueError, match=match):
    _magnitudes(images, **changes)


def test_the_projection_is_an_ordinary_layer():
  module = gabor.Gabor(wavelengths=(4.0,), num_orientations=2, cell=4, dim=3)
  faces = jnp.asarray(FACES)
  variables = module.init(jax.random.key(0), faces)
  features = module.apply(variables, faces, method="features")
  layer = variables["params"]["projection"]
  assert layer["kernel"].shape == (features.shape[1], 3)
  np.testing.assert_allclose(
    module.apply(variables, faces),
    np.asarray(features) @ np.asarray(layer["kernel"])
    + np.asarray(layer["bias"]),
    rtol=1e-5,
    atol=1e-5,
  )
