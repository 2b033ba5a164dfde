"""Perceptual hashes: what copies and other images have in common."""

import numpy as np
import pytest
import scipy.fft

from facesiam_jax.evaluation.audit import findings, hashing


def _images(count=40, seed=0):
  """Smooth noise, as faces are."""
  rng = np.random.default_rng(seed)
  waves = rng.normal(size=(count, 32, 32))
  fall = 1 / (1 + np.arange(32)[:, None] + np.arange(32))
  images = scipy.fft.idctn(waves * fall, axes=(1, 2), norm="ortho")
  low, high = images.min((1, 2)), images.max((1, 2))
  images = (images - low[:, None, None]) / (high - low)[:, None, None]
  return np.rint(40 + 170 * images).astype(np.uint8)


def test_bits_are_those_of_scipys_transform():
  images = _images(3)
  words = hashing.phash(images)
  size = hashing.FREQUENCIES
  for image, word in zip(images, words, strict=True):
    waves = scipy.fft.dctn(image.astype(float))[:size, :size].ravel()
    waves[0] = 0
    # SciPy weighs all of its values by the same 4.
    bits = np.unpackbits(word.view(np.uint8)).astype(bool)
    np.testing.assert_array_equal(bits, waves > np.median(waves))


def test_copies_are_near_and_others_are_not():
  images = _images().astype(np.float64)
  noise = np.random.default_rng(1).normal(0, 2, images.shape)
  copies = hashing.phash(0.7 * images + 30 + noise)
  pairs = hashing.near_pairs(hashing.phash(images), copies, findings.MOST)
  np.testing.assert_array_equal(pairs.i, np.arange(40))
  np.testing.assert_array_equal(pairs.j, np.arange(40))


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_find_what_a_loop_finds(block):
  a, b = hashing.phash(_images(20)), hashing.phash(_images(15, seed=1))
  found = hashing.near_pairs(a, b, 118, block=block)
  wanted = [
    (i, j, d)
    for i, x in enumerate(a)
    for j, y in enumerate(b)
    if (d := sum(int(v ^ w).bit_count() for v, w in zip(x, y, strict=True)))
    <= 118
  ]
  assert wanted and list(zip(*map(list, found), strict=True)) == wanted


def test_degenerate_input():
  assert not hashing.phash(np.full((1, 32, 32), 90, np.uint8)).any()
  empty = hashing.phash(np.zeros((0, 32, 32)))
  assert len(hashing.near_pairs(empty, empty, 9).i) == 0
  with pytest.raises(ValueError, match="32"):
    hashing.phash(np.zeros((1, 8, 8)))
  with pytest.raises(ValueError, match="hashes"):
    hashing.near_pairs(empty, np.zeros((0, 1)), 9)
