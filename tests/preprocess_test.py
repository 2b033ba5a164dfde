"""Tests of facesiam_jax.preprocess."""

import numpy as np
import pytest

from facesiam_jax import preprocess


def _images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (3, 8, 6, 1), dtype=np.uint8)


def test_to_float_covers_the_range():
  images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
  values = np.asarray(preprocess.to_float(images)).ravel()
  np.testing.assert_allclose(values, [0.0, 0.2, 1.0], rtol=1e-6)
  for bad in (images.astype(np.float32), images[0]):
    with pytest.raises(ValueError, match="uint8"):
      preprocess.to_float(bad)


def test_fixed_equals_formula():
  images = preprocess.to_float(_images())
  done = preprocess.standardize(images, kind="fixed", mean=0.4, std=0.2)
  expected = (_images() / 255.0 - 0.4) / 0.2
  np.testing.assert_allclose(done, expected, rtol=1e-5, atol=1e-6)


def test_each_channel_has_its_own_mean_and_deviation():
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
  images = preprocess.to_float(pixels)
  # Those of dlib's network, which subtracts from 0..255 and divides by 256.
  mean = [122.782, 117.001, 104.298]
  done = preprocess.standardize(
    images, kind="fixed", mean=[m / 255 for m in mean], std=256 / 255
  )
  expected = (pixels - np.array(mean)) / 256
  np.testing.assert_allclose(done, expected, rtol=1e-5, atol=1e-6)
  each = preprocess.standardize(
    images, kind="fixed", mean=0.5, std=[0.1, 0.2, 0.4]
  )
  expected = (pixels / 255.0 - 0.5) / np.array([0.1, 0.2, 0.4])
  np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-5)
  assert preprocess.standardize(images[:0], kind="fixed").shape == (0, 5, 4, 3)


@pytest.mark.parametrize(
  "bad, words",
  [
    ({"mean": [0.1, 0.2]}, r"mean must be one number or a list of 3"),
    ({"std": [[0.1, 0.2, 0.3]]}, r"std must be one number or a list of 3"),
    ({"std": [0.1, 0.0, 0.3]}, "std must be positive"),
    ({"mean": float("nan")}, "mean must be finite"),
  ],
)
def test_wrong_channels_are_refused(bad, words):
  images = np.zeros((2, 4, 4, 3), np.float32)
  with pytest.raises(ValueError, match=words):
    preprocess.standardize(images, kind="fixed", **bad)


def test_per_image_has_mean_0_and_deviation_1():
  images = preprocess.to_float(_images())
  done = np.asarray(preprocess.standardize(images, kind="per_image"))
  for image, original in zip(done, _images() / 255.0, strict=True):
    expected = (original - original.mean()) / original.std()
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=1e-4)


def test_a_flat_image_gives_zeros():
  flat = np.full((1, 4, 4, 1), 77, np.uint8)
  done = preprocess.standardize(preprocess.to_float(flat), kind="per_image")
  np.testing.assert_allclose(done, 0.0, atol=1e-4)


def test_unknown_kind_is_refused():
  with pytest.raises(ValueError, match="unknown standardize kind 'x'"):
    preprocess.standardize(preprocess.to_float(_images()), kind="x")
