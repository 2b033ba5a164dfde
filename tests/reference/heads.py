"""Slow float64 loops for the heads."""

import math

from reference import ops


def affine(scores, weight, bias):
  return [float(weight) * float(score) + float(bias) for score in scores]


def squared_affine(scores, weight, bias):
  return affine([float(score) ** 2 for score in scores], weight, bias)


def _weighted(terms, weight, bias):
  return (
    sum(float(w) * term for w, term in zip(weight, terms, strict=True)) + bias
  )


def abs_difference(x, y, weight, bias):
  logits = []
  for row, other in zip(x, y, strict=True):
    terms = [abs(float(a) - float(b)) for a, b in zip(row, other, strict=True)]
    logits.append(_weighted(terms, weight, bias))
  return logits


def chi_square(x, y, weight, bias):
  return [
    _weighted(ops.chi_terms(row, other), weight, bias)
    for row, other in zip(x, y, strict=True)
  ]


FEATURES = {
  "abs": abs,
  "relu": lambda value: max(value, 0.0),
  "softplus": lambda value: math.log(1.0 + math.exp(value)),
}


def features(name, x):
  """A feature function of each entry of a matrix."""
  return [[FEATURES[name](float(value)) for value in row] for row in x]
