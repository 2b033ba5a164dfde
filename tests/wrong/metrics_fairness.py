"""Plausible mistakes in error rates and fairness by groups of people."""

import functools

import numpy as np
from reference import metrics_people as reference
from variants import Variants

from facesiam_jax import metrics

_EXACT = {"rtol": 1e-12, "atol": 1e-12}


def _groups(seed=0):
  rng = np.random.default_rng(seed)
  same = (rng.random(90) < 0.4).astype(int)
  a = rng.choice(["f", "m", "x"], 90, p=[0.5, 0.3, 0.2])
  b = np.where(same == 1, a, rng.choice(["f", "m", "x"], 90))
  scores = np.round(rng.normal(size=90) + same, 1)
  # One group has no genuine pair, and two groups never meet.
  kept = ~((same == 1) & (a == "x")) & ~((a != b) & (a != "f") & (b != "f"))
  return scores[kept], same[kept], a[kept], b[kept]


def check_group_error_rates(function):
  for seed in range(2):
    case = _groups(seed)
    for threshold in (0.5, 0.9):
      found = function(*case, threshold)
      expected = reference.group_rates(*case, threshold)
      np.testing.assert_array_equal(found.groups, expected[0])
      for got, want in zip(
        (found.fmr, found.fmr_across, found.fnmr), expected[1:], strict=True
      ):
        np.testing.assert_allclose(got, want, **_EXACT)


def _changed(*args, change):
  found = metrics.group_error_rates(*args)
  return found._replace(**change(found, *args))


def _thresholds_of_groups(scores, same, a, b, threshold):
  """A threshold for each group, at the same share of its impostors."""
  rates = metrics.group_error_rates(scores, same, a, b, threshold)
  fnmr = []
  for group in rates.groups:
    own = (a == group) & (b == group)
    place = np.quantile(scores[own & (same == 0)], 0.8)
    genuine = scores[own & (same == 1)]
    fnmr.append(np.mean(genuine < place) if genuine.size else np.nan)
  return rates._replace(fnmr=np.array(fnmr))


_RATES = [
  ([0.01, 0.03, 0.002], [0.1, 0.05, 0.2]),
  ([1e-6, 1e-4], [0.3, 0.3]),
  ([0.5, 0.4, 0.1, 0.2, 0.4], [0.9, 0.2, 0.25, 0.5, 0.1]),
]


def check_pair_of_rates(expected, function):
  for fmr, fnmr in _RATES:
    for alpha in (0.5, 0.2, 1.0):
      np.testing.assert_allclose(
        function(np.array(fmr), np.array(fnmr), alpha=alpha),
        expected(fmr, fnmr, alpha),
        **_EXACT,
      )


def check_rates(expected, function):
  for pair in _RATES:
    for rates in pair:
      np.testing.assert_allclose(
        function(np.array(rates)), expected(rates), **_EXACT
      )


def _garbe(fmr, fnmr, alpha):
  return alpha * reference.gini(fmr) + (1 - alpha) * reference.gini(fnmr)


def _uncorrected(rates):
  return reference.gini(rates) * (len(rates) - 1) / len(rates)


VARIANTS = {
  "metrics.group_error_rates": Variants(
    metrics.group_error_rates,
    check_group_error_rates,
    {
      "a threshold for each group": _thresholds_of_groups,
      "no pair counts as no error": functools.partial(
        _changed, change=lambda f, *a: {"fnmr": np.nan_to_num(f.fnmr)}
      ),
      "one order of groups": functools.partial(
        _changed, change=lambda f, *a: {"fmr": np.triu(f.fmr)}
      ),
      "across counts within": functools.partial(
        _changed,
        change=lambda f, *a: {
          "fmr_across": np.nansum(f.fmr * f.impostor, 1) / f.impostor.sum(1)
        },
      ),
      "of all impostor pairs": functools.partial(
        _changed,
        change=lambda f, *a: {"fmr": f.fmr * f.impostor / f.impostor.sum()},
      ),
      "labels flipped": lambda s, y, a, b, t: metrics.group_error_rates(
        -s, y, a, b, -t
      ),
    },
  ),
  "metrics.fairness_discrepancy_rate": Variants(
    metrics.fairness_discrepancy_rate,
    functools.partial(check_pair_of_rates, reference.fairness_discrepancy_rate),
    {
      "discrepancy, not fairness": lambda f, n, alpha: (
        alpha * np.ptp(f) + (1 - alpha) * np.ptp(n)
      ),
      "weights swapped": lambda f, n, alpha: metrics.fairness_discrepancy_rate(
        f, n, alpha=1 - alpha
      ),
      "standard deviation": lambda f, n, alpha: (
        1 - alpha * np.std(f) - (1 - alpha) * np.std(n)
      ),
      "neighbours only": lambda f, n, alpha: (
        1
        - alpha * np.abs(np.diff(f)).max()
        - (1 - alpha) * np.abs(np.diff(n)).max()
      ),
      "equal weights": lambda f, n, alpha: metrics.fairness_discrepancy_rate(
        f, n
      ),
    },
  ),
  "metrics.max_ratio": Variants(
    metrics.max_ratio,
    functools.partial(check_rates, lambda rates: max(rates) / min(rates)),
    {
      "inverse": lambda r: r.min() / r.max(),
      "difference": np.ptp,
      "over the mean": lambda r: r.max() / r.mean(),
      "over the geometric mean": metrics.geometric_mean_ratio,
      "first over last": lambda r: r[0] / r[-1],
    },
  ),
  "metrics.geometric_mean_ratio": Variants(
    metrics.geometric_mean_ratio,
    functools.partial(check_rates, reference.geometric_mean_ratio),
    {
      "arithmetic mean": lambda r: r.max() / r.mean(),
      "harmonic mean": lambda r: r.max() * np.mean(1 / r),
      "over the lowest": metrics.max_ratio,
      "product, no root": lambda r: r.max() / np.prod(r),
      "logarithm": lambda r: np.log(metrics.geometric_mean_ratio(r)),
    },
  ),
  "metrics.gini": Variants(
    metrics.gini,
    functools.partial(check_rates, reference.gini),
    {
      "biased for few groups": _uncorrected,
      "not relative": lambda r: reference.gini(r) * r.mean(),
      "pairs once": lambda r: reference.gini(r) / 2,
      "over the highest": lambda r: reference.gini(r) * r.mean() / r.max(),
      "one less": lambda r: 1 - reference.gini(r),
    },
  ),
  "metrics.garbe": Variants(
    metrics.garbe,
    functools.partial(check_pair_of_rates, _garbe),
    {
      "weights swapped": lambda f, n, alpha: _garbe(f, n, 1 - alpha),
      "biased for few groups": lambda f, n, alpha: (
        alpha * _uncorrected(f) + (1 - alpha) * _uncorrected(n)
      ),
      "of the mean rates": lambda f, n, alpha: reference.gini(
        alpha * f + (1 - alpha) * n
      ),
      "equal weights": lambda f, n, alpha: _garbe(f, n, 0.5),
      "fairness discrepancy": metrics.fairness_discrepancy_rate,
    },
  ),
}
