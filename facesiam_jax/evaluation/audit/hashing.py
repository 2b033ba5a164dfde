"""Perceptual hashes of faces, and which are nearly the same.

A hash tells the signs of an image's lowest frequencies: a copy that was scaled,
compressed again or brightened has nearly the same ones. 256 bits, since 64 do
not tell aligned faces apart: at 10 of 64 bits, 43 of 327,711 pairs of photos of
CelebA that are not the same passed for it, at 62 of 256 none. The same photo
aligned in two ways (by five points, and by the eyes at half the size) is
another matter: of 313 such pairs 25 % were found at 62 bits, 6 % at 40. Hashes
do not find a photo that was cut or framed anew; `copies` does, with embeddings.

References: Zauner 2010, Implementation and benchmarking of perceptual image
hash functions (the DCT hash).
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Side of the grey images that are hashed, pixels.
SIDE = 32
# Frequencies in each direction; their product is the number of bits.
FREQUENCIES = 16
_BLOCK = 2048


class Pairs(NamedTuple):
  """Pairs of images that nearly have one hash.

  Attributes:
    i: rows of the first set, int64 [K].
    j: rows of the second, int64 [K].
    distance: bits that differ, int64 [K].
  """

  i: np.ndarray
  j: np.ndarray
  distance: np.ndarray


@functools.cache
def _cosines() -> np.ndarray:
  """The DCT-II of the frequencies 1 to FREQUENCIES, [FREQUENCIES, SIDE]."""
  place = np.arange(SIDE) + 0.5
  frequency = np.arange(FREQUENCIES + 1)
  return np.cos(np.pi / SIDE * frequency[:, None] * place)[:FREQUENCIES]


def phash(images: ArrayLike) -> np.ndarray:
  """Hashes images.

  Of the two-dimensional DCT the lowest FREQUENCIES x FREQUENCIES values are
  taken; a bit says whether its value is above their median. The constant part
  counts as 0, so that brightness does not matter, nor does contrast.
  Batch meaning: rows are independent.

  Args:
    images: grey, uint8 or float [N, SIDE, SIDE].

  Returns:
    uint64 [N, FREQUENCIES ** 2 // 64].

  Raises:
    ValueError: for another shape.

  Degenerate input: an image of one grey has the hash 0.
  """
  values = np.asarray(images, np.float64)
  if values.shape[1:] != (SIDE, SIDE):
    raise ValueError(f"images must be [N, {SIDE}, {SIDE}], got {values.shape}.")
  cosines = _cosines()
  waves = (cosines @ values @ cosines.T).reshape(-1, FREQUENCIES**2)
  waves[:, 0] = 0
  # What rounding leaves of a flat image is no sign.
  waves[np.abs(waves) < 1e-6] = 0
  above = waves > np.median(waves, axis=1, keepdims=True)
  return np.packbits(above, axis=1).view(np.uint64)


def near_pairs(
  a: ArrayLike, b: ArrayLike, most: int, *, block: int = _BLOCK
) -> Pairs:
  """Finds all pairs of hashes that differ in few bits.

  All pairs are compared, a block of rows with a block of columns at a time:
  memory grows with the sets and with what is found, not with their product.

  Args:
    a: hashes, uint64 [N, W].
    b: hashes, uint64 [M, W].
    most: bits that may differ.
    block: rows and columns compared at once.

  Returns:
    The pairs, sorted by i, then j.

  Raises:
    ValueError: if the widths differ.
  """
  a, b = np.asarray(a, np.uint64), np.asarray(b, np.uint64)
  if a.ndim != 2 or a.shape[1:] != b.shape[1:]:
    raise ValueError(f"hashes must be [N, W] and [M, W]: {a.shape}, {b.shape}.")
  found = [np.zeros((0, 3), np.int64)]
  for top in range(0, len(a), block):
    for left in range(0, len(b), block):
      rows, columns = a[top : top + block], b[left : left + block]
      distance = np.zeros((len(rows), len(columns)), np.uint16)
      for word in range(a.shape[1]):
        differing = rows[:, word, None] ^ columns[None, :, word]
        distance += np.bitwise_count(differing)
      i, j = np.nonzero(distance <= most)
      found.append(np.stack([i + top, j + left, distance[i, j]], axis=1))
  rows = np.concatenate(found)
  rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
  return Pairs(*rows.T)
