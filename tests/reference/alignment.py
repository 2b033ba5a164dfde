"""Similarity transforms by SVD and bilinear warps by loops, in float64."""

import numpy as np


def umeyama(source, target):
  """Umeyama's algorithm as he wrote it, for one pair of [N, 2]: [2, 3]."""
  source, target = np.float64(source), np.float64(target)
  mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
  covariance = (target - mean_t).T @ (source - mean_s) / len(source)
  u, d, vt = np.linalg.svd(covariance)
  flip = np.array([1.0, 1.0])
  if np.linalg.det(u) * np.linalg.det(vt) < 0:
    flip[1] = -1.0
  rotation = u @ np.diag(flip) @ vt
  variance = ((source - mean_s) ** 2).sum(axis=1).mean()
  scale = (d * flip).sum() / variance
  shift = mean_t - scale * rotation @ mean_s
  return np.concatenate([scale * rotation, shift[:, None]], axis=1)


def _value(image, row, column):
  """Pixel of an [H, W, C] image; 0 outside."""
  height, width, channels = image.shape
  if 0 <= row < height and 0 <= column < width:
    return np.float64(image[row, column])
  return np.zeros(channels)


def warp(image, matrix, size):
  """Picture [size, size, C] read along a transform of corner coordinates."""
  out = np.zeros((size, size, image.shape[2]))
  for i in range(size):
    for j in range(size):
      x, y = np.float64(matrix) @ (j + 0.5, i + 0.5, 1.0) - 0.5
      left, top = int(np.floor(x)), int(np.floor(y))
      for row in (top, top + 1):
        for column in (left, left + 1):
          weight = (1 - abs(y - row)) * (1 - abs(x - column))
          out[i, j] += weight * _value(image, row, column)
  return out
