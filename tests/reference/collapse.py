"""Slow float64 loops for how far embeddings are apart."""

import math

import numpy as np


def _rows(x, weights):
  pairs = zip(np.asarray(x, np.float64), weights, strict=True)
  return [row for row, weight in pairs if weight > 0]


def statistics(x, weights=None):
  """(spread, distance, effective rank, rows), from pairs and eigenvalues."""
  rows = _rows(x, np.ones(len(x)) if weights is None else weights)
  n = len(rows)
  if n == 0:
    return 0.0, 0.0, 0.0, 0.0
  pairs_sq, length_sq = 0.0, 0.0
  for i in range(n):
    for a in rows[i]:
      length_sq += a * a / n
    for j in range(i):
      for a, b in zip(rows[i], rows[j], strict=True):
        pairs_sq += (a - b) ** 2
  # Over all ordered pairs, an image with itself too, twice the variance.
  variance = pairs_sq / (n * n)
  pairs = n * (n - 1) / 2
  spread = math.sqrt(variance / length_sq) if length_sq else 0.0
  distance = math.sqrt(pairs_sq / pairs) if pairs else 0.0
  if variance == 0:
    return spread, distance, 0.0, float(n)
  covariance = np.atleast_2d(np.cov(np.array(rows).T, bias=True))
  values = np.linalg.eigvalsh(covariance)
  rank = sum(values) ** 2 / sum(v * v for v in values)
  return spread, distance, rank, float(n)
