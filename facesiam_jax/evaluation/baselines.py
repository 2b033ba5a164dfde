"""Baselines: how alike two faces are without any network.

What a network's figures are set beside: raw pixels, and eigenfaces. The larger
a similarity, the more alike.
"""

import numpy as np
from numpy.typing import ArrayLike

EIGENFACE_COMPONENTS = 50


def raw_pixel_similarity(images: ArrayLike) -> np.ndarray:
  """Baseline: compares faces by their pixels alone.

    s(a, b) = -|a - b|, pixels divided by 255

  Nothing is learned, and images are not standardised one by one, so the light
  on a face counts as much as the face.

  Args:
    images: faces, uint8 [N, H, W] or [N, H, W, C].

  Returns:
    Similarity, float64 [N, N], symmetric, <= 0, 0 on the diagonal.

  Raises:
    ValueError: if `images` is not uint8, is empty, or has a wrong rank.

  Degenerate input: equal images have similarity 0.

  >>> raw_pixel_similarity(np.array([[[0]], [[255]]], np.uint8))[0].tolist()
  [0.0, -1.0]
  """
  # Whole numbers below 2^53, so that this is exact and near-duplicates keep
  # their distance; matrix products are many times quicker than differences.
  rows = _rows("images", images).astype(np.float64)
  squares = np.square(rows).sum(axis=1)
  return -np.sqrt(squares[:, None] + squares - 2 * (rows @ rows.T)) / 255


def pca_similarity(
  train_images: ArrayLike,
  test_images: ArrayLike,
  *,
  components: int = EIGENFACE_COMPONENTS,
) -> np.ndarray:
  """Baseline: compares faces by their eigenface coefficients.

    s(a, b) = -|W (a - b)|

  W holds the first principal components of the training faces as unit rows. The
  coefficients are not whitened: dividing each by its standard deviation made
  the baseline worse (inner splits of the Olivetti training people).

  Args:
    train_images: faces of the training people, uint8 [M, H, W] or
      [M, H, W, C].
    test_images: faces to compare, uint8 [N, ...], of the same size.
    components: principal components kept, 1..M - 1; fixed for the benchmarks.

  Returns:
    Similarity, float64 [N, N], symmetric, <= 0, 0 on the diagonal.

  Raises:
    ValueError: naming the argument, for a wrong dtype, rank or size, or too few
      training images with different pixels for that many components.

  Degenerate input: test images that differ only outside the span of the
  components have similarity 0 up to rounding.

  References: Turk and Pentland 1991, Eigenfaces for recognition.
  """
  train = _flatten("train_images", train_images)
  test = _flatten("test_images", test_images)
  if train.shape[1] != test.shape[1]:
    raise ValueError(
      "test_images must have as many pixels as train_images, got "
      f"{test.shape[1]} and {train.shape[1]}"
    )
  mean = train.mean(axis=0)
  _, singular, axes = np.linalg.svd(train - mean, full_matrices=False)
  rank = int((singular > singular[0] * 1e-10).sum())
  if not 1 <= components <= rank:
    raise ValueError(
      f"components must lie in 1..{rank}, the rank of train_images, got "
      f"{components}"
    )
  return _negative_distances((test - mean) @ axes[:components].T)


def _rows(name: str, images: ArrayLike) -> np.ndarray:
  """Images as rows, uint8 [N, H * W * C]."""
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
    raise ValueError(
      f"{name} must be uint8 [N, H, W] or [N, H, W, C] and not empty, got "
      f"{images.dtype} {images.shape}"
    )
  return images.reshape(len(images), -1)


def _flatten(name: str, images: ArrayLike) -> np.ndarray:
  """Images as float64 rows in 0..1, [N, H * W * C]."""
  return _rows(name, images) / 255


def _negative_distances(rows: np.ndarray) -> np.ndarray:
  """-|a - b| of each two rows, float64 [N, N], exactly symmetric."""
  similarity = np.zeros((len(rows), len(rows)))
  for n, row in enumerate(rows):
    # Differences, not |a|^2 + |b|^2 - 2 a b, which loses near-duplicates.
    similarity[n] -= np.sqrt(np.square(rows - row).sum(axis=1))
  return similarity
