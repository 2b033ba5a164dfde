"""Plausible mistakes in false positives by the size of a gallery."""

import functools
import itertools

import numpy as np
from variants import Variants

from facesiam_jax import metrics


def _by_counting(rate, size):
  """No false match in so many comparisons, one after another."""
  missed = 1.0
  for _ in range(size):
    missed *= 1.0 - rate
  return 1.0 - missed


def _check_fpir(function):
  for rate in (0.0, 1e-3, 0.2, 1.0):
    for size in (0, 1, 3, 40):
      want = _by_counting(rate, size)
      np.testing.assert_allclose(function(rate, size), want, atol=1e-12)


def _check_fmr(function):
  for rate in (0.0, 1e-3, 0.2, 1.0):
    for size in (1, 3, 40):
      found = _by_counting(function(rate, size), size)
      np.testing.assert_allclose(found, rate, atol=1e-12)
  assert function(1e-12, 10**6) > 0


@functools.cache
def _case():
  """Five people of one to three images, and what all galleries give."""
  rng = np.random.default_rng(0)
  people = np.array([0, 0, 0, 1, 2, 2, 3, 4])
  scores = np.round(rng.normal(size=(8, 8)), 1)
  scores = scores + scores.T + 5.0 * (people[:, None] == people[None])
  # Ties with a threshold count.
  thresholds, sizes = np.array([-1.0, scores[0, 4], 1.5]), np.array([1, 2, 4])
  want = np.zeros((len(sizes), len(thresholds)))
  for row, size in enumerate(sizes):
    for column, threshold in enumerate(thresholds):
      rates = []
      for probe in range(8):
        others = [p for p in range(5) if p != people[probe]]
        for enrolled in itertools.combinations(others, int(size)):
          images = [np.flatnonzero(people == p) for p in enrolled]
          hits = [
            max(scores[probe, i] for i in chosen) >= threshold
            for chosen in itertools.product(*images)
          ]
          rates.append((probe, np.mean(hits)))
      by_probe = [np.mean([r for p, r in rates if p == q]) for q in range(8)]
      want[row, column] = np.mean(by_probe)
  return scores, people, thresholds, sizes, want


def _check_by_size(function):
  scores, people, thresholds, sizes, want = _case()
  before = scores.copy()
  found = function(scores, people, thresholds, sizes, draws=1500)
  np.testing.assert_allclose(found.fpir, want, atol=0.02)
  np.testing.assert_array_equal(scores, before)
  assert found.people == 5 and found.low is None and "30" in found.reason


def _independent(scores, people, thresholds, sizes, draws):
  right = metrics.fpir_by_size(scores, people, thresholds, [1], draws=draws)
  rates = 1 - (1 - right.fpir) ** sizes[:, None]
  return right._replace(fpir=rates)


def _changed(change):
  def wrong(scores, people, thresholds, sizes, draws):
    args = change(scores, people, thresholds, sizes)
    return metrics.fpir_by_size(*args, draws=draws)

  return wrong


VARIANTS = {
  "metrics.fpir_of_fmr": Variants(
    right=metrics.fpir_of_fmr,
    check=_check_fpir,
    wrong={
      "not corrected": lambda rate, size: rate,
      "sum": lambda rate, size: rate * size,
      "all": lambda rate, size: rate**size,
      "none": lambda rate, size: (1 - rate) ** size,
      "inverse": lambda rate, size: 1 - (1 - rate) ** (1 / max(size, 1)),
    },
  ),
  "metrics.fmr_of_fpir": Variants(
    right=metrics.fmr_of_fpir,
    check=_check_fmr,
    wrong={
      "not corrected": lambda rate, size: rate,
      "share": lambda rate, size: rate / size,
      "inverse": lambda rate, size: 1 - (1 - rate) ** size,
      "rounded to 0": lambda rate, size: 1 - (1 - rate) ** (1 / size),
    },
  ),
  "metrics.fpir_by_size": Variants(
    right=metrics.fpir_by_size,
    check=_check_by_size,
    wrong={
      "independent": _independent,
      "strictly above": _changed(
        lambda s, p, t, n: (s, p, np.nextafter(t, 9), n)
      ),
      "one less": _changed(lambda s, p, t, n: (s, p, t, np.maximum(n - 1, 1))),
      "transposed people": _changed(lambda s, p, t, n: (s, p[::-1], t, n)),
      "below": _changed(lambda s, p, t, n: (-s, p, -t, n)),
    },
  ),
}
