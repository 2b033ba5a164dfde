"""Copies of one photo under another framing, which hashes do not tell.

Embeddings find the few images that may be copies; whether one is, the pixels
say: the affine map is sought that takes the one to the other, and what is left
between them is noise if they are one photo, and another smile if not.

Evangelidis and Psarakis 2008, Parametric image alignment using enhanced
correlation coefficient maximization.
"""

import functools
from typing import NamedTuple

import cv2
import jax
import numpy as np

from facesiam_jax.gallery import search

# Correlation of two images laid upon each other from which they are one photo.
LEAST = 0.99
# Nearest images that are looked at for each, and how far they may be, as a part
# of the mean squared distance between images of one person: copies are nearer
# than most other photos of the person.
NEAREST = 3
NEAR = 0.6
# The search starts from equal framings, and from each being this part of the
# other.
_SMALLER = 0.85
_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-4)
# Share of the image that both must show.
_OVERLAP = 0.4
_QUERIES = 1024


class Copy(NamedTuple):
  """Two images that are one photo.

  Attributes:
    i: of the first set.
    j: of the second.
    correlation: of their pixels, laid upon each other.
    mirrored: whether one is mirrored.
  """

  i: int
  j: int
  correlation: float
  mirrored: bool


def nearest(
  a: np.ndarray, b: np.ndarray | None, metric: str, *, k: int = NEAREST
) -> np.ndarray:
  """Finds the nearest images by their embeddings, exactly.

  Args:
    a: embeddings, float32 [N, D].
    b: embeddings, float32 [M, D]; None finds others of a.
    metric: "cosine" or "euclidean".
    k: how many for each of a.

  Returns:
    Pairs (i, j), int64 [K, 2], sorted; i < j inside one set.
  """
  own = b is None
  b = a if b is None else b
  if not len(a) or not len(b):
    return np.zeros((0, 2), np.int64)
  find = jax.jit(
    functools.partial(search.top_k, k=k + 1 if own else k, metric=metric)
  )
  valid, ids = np.ones(len(b), bool), np.arange(len(b), dtype=np.int32)
  pairs = set()
  for first in range(0, len(a), _QUERIES):
    # Always the same shape, for one compilation.
    queries = np.zeros((_QUERIES, a.shape[1]), np.float32)
    part = a[first : first + _QUERIES]
    queries[: len(part)] = part
    for row, found in enumerate(np.asarray(find(b, valid, ids, queries).ids)):
      i = first + row
      if i >= len(a):
        break
      others = [int(j) for j in found if j >= 0 and not (own and j == i)]
      pairs |= {(min(i, j), max(i, j)) if own else (i, j) for j in others[:k]}
  return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def near(
  pairs: np.ndarray, a: np.ndarray, b: np.ndarray, typical: float
) -> np.ndarray:
  """Keeps the pairs nearer than `NEAR` times what is typical of one person.

  Args:
    pairs: (i, j), int [K, 2].
    a: embeddings, float32 [N, D].
    b: embeddings, float32 [M, D].
    typical: mean squared distance of one person's images; NaN keeps all.
  """
  distance_sq = np.square(a[pairs[:, 0]] - b[pairs[:, 1]]).sum(axis=1)
  return pairs[~(distance_sq > NEAR * typical)]


def typical_sq(embeddings: np.ndarray, person: np.ndarray) -> float:
  """Mean squared distance between images of one person, NaN without two.

  Args:
    embeddings: float32 [N, D].
    person: whose each is, int [N].
  """
  values = embeddings.astype(np.float64)
  n = np.bincount(person)
  means = np.zeros((len(n), values.shape[1]))
  np.add.at(means, person, values)
  means /= np.maximum(n, 1)[:, None]
  spread = np.bincount(person, np.square(values - means[person]).sum(axis=1))
  several = n > 1
  if not several.any():
    return float("nan")
  return float((2 * spread[several] / (n[several] - 1)).mean())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
  """Correlation of two grey images once one is laid upon the other.

  Args:
    a: uint8 [H, W].
    b: uint8 [H, W].

  Returns:
    The highest of a few starts, -1 to 1; -1 where nothing fits, or an image is
    of one grey.
  """
  starts = (a, b, 1.0), (a, b, _SMALLER), (b, a, _SMALLER)
  return max(_aligned(*start) for start in starts)


def _aligned(a: np.ndarray, b: np.ndarray, scale: float) -> float:
  side = a.shape[0]
  shift = (1 - scale) * (side - 1) / 2
  start = np.array([[scale, 0, shift], [0, scale, shift]], np.float32)
  try:
    value, matrix = cv2.findTransformECC(
      a, b, start, cv2.MOTION_AFFINE, _STEPS, None, 3
    )
  except cv2.error:  # It does not converge: they have nothing in common.
    return -1.0
  flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
  shown = cv2.warpAffine(np.ones_like(b), matrix, a.shape[::-1], flags=flags)
  return float(value) if shown.mean() >= _OVERLAP else -1.0


def confirm(
  pairs: np.ndarray, a: np.ndarray, b: np.ndarray, *, least: float = LEAST
) -> list[Copy]:
  """Keeps the pairs of images that are one photo.

  Args:
    pairs: (i, j), int [K, 2], such as of `nearest`.
    a: grey images of the first set, uint8 [N, S, S].
    b: of the second, uint8 [M, S, S].
    least: correlation from which two are one photo.

  Returns:
    The copies, the most alike first.
  """
  found = []
  for i, j in pairs:
    one, other = a[i], b[j]
    mirrored = _alike(one, other[:, ::-1]) > _alike(one, other)
    if mirrored:
      other = np.ascontiguousarray(other[:, ::-1])
    value = correlation(one, other)
    if value >= least:
      found.append(Copy(int(i), int(j), value, bool(mirrored)))
  return sorted(found, key=lambda copy: (-copy.correlation, copy.i, copy.j))


def _alike(a: np.ndarray, b: np.ndarray) -> float:
  """Product of two images without their means, coarse: which way round."""
  small = [
    cv2.resize(x, (8, 8), interpolation=cv2.INTER_AREA).astype(float)
    for x in (a, np.ascontiguousarray(b))
  ]
  return float(((small[0] - small[0].mean()) * small[1]).sum())
