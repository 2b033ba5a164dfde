"""Plausible mistakes in scores of likelihood ratios and probabilities."""

import functools

import numpy as np
from reference import metric_cases
from reference import metrics_calibration as reference
from variants import Variants

from facesiam_jax import metrics

_CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def check_scores(name, function):
  """For metrics of scores that may be any number."""
  for scores, same in metric_cases.PAIRS:
    expected = getattr(reference, name)(scores, same)
    np.testing.assert_allclose(function(scores, same), expected, **_CLOSE)


def _probabilities():
  """Tenths, so that some lie on the edges of ten bins, and exact 0 and 1."""
  for scores, same in metric_cases.PAIRS[:8]:
    yield np.round(1 / (1 + np.exp(-2 * scores)), 1), same
    yield 1 / (1 + np.exp(-2 * scores)), same


def check_brier(function):
  for probabilities, same in _probabilities():
    expected = reference.brier(probabilities, same)
    np.testing.assert_allclose(
      function(probabilities, same), expected, **_CLOSE
    )


def check_ece(function):
  for probabilities, same in _probabilities():
    for bins in (1, 4, 10):
      expected = reference.ece(probabilities, same, bins)
      found = function(probabilities, same, bins=bins)
      np.testing.assert_allclose(found, expected, **_CLOSE)


def _cllr(llrs, same, log=np.log2, balanced=True, sign=1):
  losses = log(1 + np.exp(np.where(same == 1, -sign, sign) * llrs))
  if not balanced:
    return losses.mean()
  return (losses[same == 1].mean() + losses[same == 0].mean()) / 2


def _min_cllr(scores, same, extra=0, mean_of=None):
  """From the pooled blocks, with pairs added to each."""
  blocks = np.array([b[2:] for b in reference.pooled(scores, same)], float)
  blocks += extra
  g, i = blocks.T
  kinds = (1, 1) if mean_of == "posterior" else (g.sum(), i.sum())
  with np.errstate(divide="ignore", invalid="ignore"):
    odds = (g / kinds[0]) / (i / kinds[1])
    cost = [g * np.log2(1 + 1 / odds), i * np.log2(1 + odds)]
  costs = [np.nansum(c) / n.sum() for c, n in zip(cost, (g, i), strict=True)]
  return sum(costs) / 2


def _unpooled(scores, same):
  """Each distinct score its own block: the map may fall."""
  index = np.unique(scores, return_inverse=True)[1]
  g, i = (
    np.bincount(index[same == k], minlength=index.max() + 1) for k in (1, 0)
  )
  mixed = (g > 0) & (i > 0)
  g, i = g[mixed], i[mixed]
  odds = (g / same.sum()) / (i / (same == 0).sum())
  on_g = (g * np.log2(1 + 1 / odds)).sum() / same.sum()
  return (on_g + (i * np.log2(1 + odds)).sum() / (same == 0).sum()) / 2


def _ece(
  probabilities, same, bins, side="left", square=False, weigh=True, mass=False
):
  edges = np.arange(1, bins) / bins
  if mass:
    edges = np.quantile(probabilities, edges)
  place = np.searchsorted(edges, probabilities, side=side)
  total = 0.0
  for b in range(bins):
    inside = place == b
    if inside.any():
      gap = abs(probabilities[inside].mean() - same[inside].mean())
      weight = inside.mean() if weigh else 1 / len(set(place))
      total += weight * (gap**2 if square else gap)
  return total


def _winner(probabilities, same, bins):
  """Of the likelier class, as for a classifier."""
  sure = np.maximum(probabilities, 1 - probabilities)
  return _ece(sure, ((probabilities > 0.5) == (same == 1)).astype(int), bins)


VARIANTS = {
  "metrics.cllr": Variants(
    metrics.cllr,
    functools.partial(check_scores, "cllr"),
    {
      "nats": functools.partial(_cllr, log=np.log),
      "pairs not weighted by kind": functools.partial(_cllr, balanced=False),
      "sign": functools.partial(_cllr, sign=-1),
      "sum for mean": lambda *a: 2 * _cllr(*a),
      "ratios in bits": lambda z, y: _cllr(z * np.log(2), y),
    },
  ),
  "metrics.min_cllr": Variants(
    metrics.min_cllr,
    functools.partial(check_scores, "min_cllr"),
    {
      "Laplace's counts": functools.partial(_min_cllr, extra=1),
      "prior kept": functools.partial(_min_cllr, mean_of="posterior"),
      "not pooled": _unpooled,
      "sign": lambda s, y: metrics.min_cllr(-s, y),
      "of the scores as they are": metrics.cllr,
    },
  ),
  "metrics.ece": Variants(
    metrics.ece,
    check_ece,
    {
      "edges to the bin above": functools.partial(_ece, side="right"),
      "squares": functools.partial(_ece, square=True),
      "bins not weighted": functools.partial(_ece, weigh=False),
      "bins of equal mass": functools.partial(_ece, mass=True),
      "of the likelier class": _winner,
    },
  ),
  "metrics.brier": Variants(
    metrics.brier,
    check_brier,
    {
      "absolute": lambda p, y: np.mean(np.abs(p - y)),
      "root": lambda p, y: np.sqrt(np.mean((p - y) ** 2)),
      "both classes": lambda p, y: 2 * np.mean((p - y) ** 2),
      "kinds weighted alike": lambda p, y: (
        (np.mean((p[y == 1] - 1) ** 2) + np.mean(p[y == 0] ** 2)) / 2
      ),
      "labels flipped": lambda p, y: np.mean((p - 1 + y) ** 2),
    },
  ),
  "metrics.nll": Variants(
    metrics.nll,
    functools.partial(check_scores, "nll"),
    {
      "bits": functools.partial(_cllr, balanced=False),
      "kinds weighted alike": functools.partial(_cllr, log=np.log),
      "sign": lambda z, y: metrics.nll(-z, y),
      "sum for mean": lambda z, y: metrics.nll(z, y) * z.size,
      "genuine pairs only": lambda z, y: np.logaddexp(0, -z[y == 1]).mean(),
    },
  ),
}
