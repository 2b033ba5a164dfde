"""Plausible mistakes in calibration and in score normalisation."""

import functools
import math

import numpy as np
from reference import metric_cases
from reference import metrics_calibration as reference
from variants import Variants

from facesiam_jax import metrics

_CLOSE = {"rtol": 1e-10, "atol": 1e-10}
_PAIRS = [
  metric_cases.pairs(seed, ties=seed % 2 == 0, num_genuine=17, num_impostor=53)
  for seed in range(4)
]


def check_fit_platt(function):
  for scores, same in [*_PAIRS, *metric_cases.PAIRS[8:10]]:
    w, b = function(scores, same)
    # In standardised units, where a gradient of 1 is a large one.
    centre, scale = scores.mean(), scores.std()
    gradient = reference.platt_gradient(
      w * scale, b + w * centre, (scores - centre) / scale, same
    )
    np.testing.assert_allclose(gradient, 0, rtol=0, atol=1e-7)


def _plain_logistic(scores, same):
  """Hard targets, pairs not weighted by kind: a few Newton steps."""
  features = np.stack([scores, np.ones_like(scores)])
  theta = np.zeros(2)
  for _ in range(30):
    p = 1 / (1 + np.exp(-theta @ features))
    hessian = features * (p * (1 - p)) @ features.T + 1e-9 * np.eye(2)
    theta = theta - np.linalg.solve(hessian, features @ (p - same))
  return theta


def _platt(scores, same, change):
  return change(*metrics.fit_platt(scores, same))


def check_fit_isotonic(function):
  for scores, same in [*_PAIRS, *metric_cases.PAIRS[8:]]:
    at = np.linspace(scores.min() - 0.5, scores.max() + 0.5, 41)
    expected = reference.isotonic_llr(scores, same, [*scores, *at])
    found = function(scores, same).llr([*scores, *at])
    np.testing.assert_allclose(found, expected, **_CLOSE)


class _Map:
  """A map from scores to likelihood ratios, with one thing wrong."""

  def __init__(self, scores, same, kind):
    self.kind = kind
    self.fit = metrics.fit_isotonic(scores, same)
    num = same.sum()
    self.offset = {
      "prior kept": math.log((num + 2) / (len(same) - num + 2)),
      "bare prior": math.log((num + 2) / (len(same) - num + 2))
      - math.log(num / (len(same) - num)),
    }.get(kind, 0.0)
    self.blocks = reference.pooled(scores, same)
    self.prior = math.log(num / (len(same) - num))

  def llr(self, scores):
    if self.kind == "step":
      knots = self.fit.scores[1::2]
      place = np.searchsorted(knots, scores).clip(max=knots.size - 1)
      return self.fit.llrs[1::2][place]
    if self.kind in ("no pairs added", "added to each block"):
      extra = self.kind == "added to each block"
      rows = [(h, g + extra, i + extra) for _, h, g, i in self.blocks]
      highs, genuine, impostor = np.array(rows).T
      place = np.searchsorted(highs, scores).clip(max=highs.size - 1)
      with np.errstate(divide="ignore"):
        return (np.log(genuine) - np.log(impostor))[place] - self.prior
    llrs = self.fit.llr(scores)
    return -llrs if self.kind == "sign" else llrs + self.offset


def check_fit_temperature(function):
  for scores, same in _PAIRS[1:]:
    logits = 3 * (scores - 0.6)
    slope = reference.temperature_slope(function(logits, same), logits, same)
    np.testing.assert_allclose(slope, 0, rtol=0, atol=1e-9)


def _unbalanced_temperature(logits, same):
  """Every pair counts the same."""
  grid = np.geomspace(0.05, 100, 4001)
  signs = np.where(same == 1, 1, -1)
  return min(grid, key=lambda t: np.logaddexp(0, -signs * logits / t).sum())


def check_log_likelihood_ratio(function):
  logits = np.array([-3.0, 0.0, 0.7, 800.0])
  for num_genuine, num_impostor in ((17, 530), (40, 4), (6, 6)):
    expected = [z - math.log(num_genuine / num_impostor) for z in logits]
    found = function(logits, num_genuine=num_genuine, num_impostor=num_impostor)
    np.testing.assert_allclose(found, expected, **_CLOSE)


def check_probability(function):
  llrs = np.array([-30.0, -2.0, 0.0, 0.5, 9.0])
  for prior in (1e-4, 0.3, 0.5, 0.99):
    expected = [reference.probability(llr, prior) for llr in llrs]
    found = function(llrs, prior=prior)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=0)


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


@functools.cache
def _cohorts():
  rng = np.random.default_rng(0)
  probes = rng.normal(size=(5, 11)) + rng.normal(size=(5, 1))
  enrolled = 2 * rng.normal(size=(3, 7)) + rng.normal(size=(3, 1))
  enrolled[1] = 0.25
  return rng.normal(size=(3, 5)), enrolled, probes


def check_normalized(name, function):
  """`function` takes scores, then the cohorts that it needs."""
  scores, enrolled, probes = _cohorts()
  needed = {
    "z_norm": [enrolled],
    "t_norm": [probes],
    "s_norm": [enrolled, probes],
  }[name]
  place = ["z_norm", "t_norm", "s_norm"].index(name)
  for options in ({}, {"top_k": 4}, {"top_k": 3, "sd_floor": 0.7}):
    expected = reference.normalized(scores, enrolled, probes, **options)[place]
    np.testing.assert_allclose(
      function(scores, *needed, **options), expected, **_CLOSE
    )


def check_cohort_statistics(function):
  for cohort in _cohorts()[1:]:
    for options in ({}, {"top_k": 4}, {"top_k": 1, "sd_floor": 0.7}):
      expected = [reference.cohort(row, **options) for row in cohort]
      found = np.stack(function(cohort, **options), axis=1)
      np.testing.assert_allclose(found, expected, **_CLOSE)


def _statistics(
  cohort, top_k=None, sd_floor=1e-3, ddof=0, lowest=False, add=False, axis=1
):
  ordered = np.sort(cohort, axis=1)
  if top_k is not None:
    ordered = ordered[:, :top_k] if lowest else ordered[:, -top_k:]
  # A single score has no sample standard deviation.
  ddof = min(ddof, ordered.shape[1] - 1)
  sd = ordered.std(axis=axis, ddof=ddof)
  if axis == 0:
    sd = np.full(len(cohort), sd.mean())
  sd = sd + sd_floor if add else np.maximum(sd, sd_floor)
  return ordered.mean(axis=1), sd


def _norm(name, scores, *cohorts, scale=True, centre=True, mistake=None, **kw):
  """A normalisation of which a part is missing."""
  parts = []
  for cohort, is_rows in zip(
    cohorts,
    [True, False] if name == "s_norm" else [name == "z_norm"],
    strict=True,
  ):
    mean, sd = _statistics(cohort, **kw, **(mistake or {}))
    if is_rows:
      mean, sd = mean[:, None], sd[:, None]
    part = scores - mean if centre else scores
    parts.append(part / sd if scale else part)
  return sum(parts) / len(parts)


def _norm_mistakes(name):
  wrong = functools.partial(_norm, name)
  return {
    "not divided": functools.partial(wrong, scale=False),
    "not centred": functools.partial(wrong, centre=False),
    "lowest of the cohort": functools.partial(wrong, mistake={"lowest": True}),
    "sample standard deviation": functools.partial(wrong, mistake={"ddof": 1}),
    "floor added": functools.partial(wrong, mistake={"add": True}),
    "one spread for all": functools.partial(wrong, mistake={"axis": 0}),
  }


VARIANTS = {
  "metrics.fit_platt": Variants(
    metrics.fit_platt,
    check_fit_platt,
    {
      "sign": lambda *a: _platt(*a, lambda w, b: (-w, -b)),
      "prior of the set kept": lambda s, y: _platt(
        s, y, lambda w, b: (w, b + math.log(np.mean(y) / np.mean(1 - y)))
      ),
      "no offset": lambda *a: _platt(*a, lambda w, b: (w, 0.0)),
      "plain logistic regression": _plain_logistic,
      "slope a little off": lambda *a: _platt(*a, lambda w, b: (0.99 * w, b)),
      "labels flipped": lambda s, y: metrics.fit_platt(s, 1 - y),
    },
  ),
  "metrics.fit_isotonic": Variants(
    metrics.fit_isotonic,
    check_fit_isotonic,
    {
      kind: functools.partial(_Map, kind=kind)
      for kind in (
        *("sign", "prior kept", "bare prior", "step"),
        *("no pairs added", "added to each block"),
      )
    },
  ),
  "metrics.fit_temperature": Variants(
    metrics.fit_temperature,
    check_fit_temperature,
    {
      "inverse": lambda *a: 1 / metrics.fit_temperature(*a),
      "root": lambda *a: metrics.fit_temperature(*a) ** 0.5,
      "pairs not weighted by kind": _unbalanced_temperature,
      "standard deviation": lambda s, y: s.std(),
      "one": lambda s, y: 1.0,
      "slope of Platt": lambda *a: 1 / metrics.fit_platt(*a).w,
    },
  ),
  "metrics.log_likelihood_ratio": Variants(
    metrics.log_likelihood_ratio,
    check_log_likelihood_ratio,
    {
      "sign": lambda z, num_genuine, num_impostor: (
        z + np.log(num_genuine / num_impostor)
      ),
      "share for odds": lambda z, num_genuine, num_impostor: (
        z - np.log(num_genuine / (num_genuine + num_impostor))
      ),
      "odds, not their logarithm": lambda z, num_genuine, num_impostor: (
        z - num_genuine / num_impostor
      ),
      "bits": lambda z, num_genuine, num_impostor: (
        z - np.log2(num_genuine / num_impostor)
      ),
      "prior kept": lambda z, num_genuine, num_impostor: z,
    },
  ),
  "metrics.probability": Variants(
    metrics.probability,
    check_probability,
    {
      "no prior": lambda z, prior: _sigmoid(z),
      "prior's sign": lambda z, prior: _sigmoid(
        z - np.log(prior / (1 - prior))
      ),
      "times the prior": lambda z, prior: _sigmoid(z) * prior,
      "log of the prior": lambda z, prior: _sigmoid(z + np.log(prior)),
      "of another person": lambda z, prior: (
        1 - metrics.probability(z, prior=prior)
      ),
      "small ones rounded": lambda z, prior: (
        0.5 * (1 + np.tanh(0.5 * (z + np.log(prior / (1 - prior)))))
      ),
    },
  ),
  "metrics.cohort_statistics": Variants(
    metrics.cohort_statistics,
    check_cohort_statistics,
    {
      "sample standard deviation": functools.partial(_statistics, ddof=1),
      "lowest of the cohort": functools.partial(_statistics, lowest=True),
      "floor added": functools.partial(_statistics, add=True),
      "one spread for all": functools.partial(_statistics, axis=0),
      "all of the cohort": lambda c, top_k=None, **k: _statistics(c, **k),
    },
  ),
  "metrics.z_norm": Variants(
    metrics.z_norm,
    functools.partial(check_normalized, "z_norm"),
    _norm_mistakes("z_norm"),
  ),
  "metrics.t_norm": Variants(
    metrics.t_norm,
    functools.partial(check_normalized, "t_norm"),
    _norm_mistakes("t_norm"),
  ),
  "metrics.s_norm": Variants(
    metrics.s_norm,
    functools.partial(check_normalized, "s_norm"),
    {
      **_norm_mistakes("s_norm"),
      "Z-norm alone": lambda s, e, p, **k: metrics.z_norm(s, e, **k),
      "sum for mean": lambda *a, **k: 2 * metrics.s_norm(*a, **k),
      "one after the other": lambda s, e, p, **k: metrics.t_norm(
        metrics.z_norm(s, e, **k), p, **k
      ),
    },
  ),
}
