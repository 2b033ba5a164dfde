"""Slow float64 loops for distances, similarities, norms and means."""

import math


def _entries(x, y):
  return [(float(a), float(b)) for a, b in zip(x, y, strict=True)]


def root(x):
  return math.sqrt(x) if x > 0 else 0.0


def norm(x):
  return math.sqrt(sum(float(a) ** 2 for a in x))


def unit(x):
  size = norm(x)
  return [float(a) / size if size > 0 else 0.0 for a in x]


def dot(x, y):
  return sum(a * b for a, b in _entries(x, y))


def cosine(x, y):
  sizes = norm(x) * norm(y)
  return dot(x, y) / sizes if sizes > 0 else 0.0


def squared(x, y):
  return sum((a - b) ** 2 for a, b in _entries(x, y))


def euclidean(x, y):
  return math.sqrt(squared(x, y))


def l1(x, y):
  return sum(abs(a - b) for a, b in _entries(x, y))


def chi_terms(x, y):
  terms = []
  for a, b in _entries(x, y):
    below = abs(a) + abs(b)
    terms.append((a - b) ** 2 / below if below > 0 else 0.0)
  return terms


def chi(x, y):
  return sum(chi_terms(x, y))


def mean(values, weights):
  total = count = 0.0
  for value, weight in zip(values, weights, strict=True):
    if weight > 0:
      total += float(value) * float(weight)
    count += float(weight)
  return total / max(count, 1.0)


def by_rows(function, x, y):
  """function of x_i and y_i for each i."""
  return [function(a, b) for a, b in zip(x, y, strict=True)]


def by_pairs(function, x, y):
  """function of x_i and y_j for all i and j."""
  return [[function(a, b) for b in y] for a in x]
