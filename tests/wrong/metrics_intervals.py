"""Plausible mistakes in intervals over people."""

import functools
import math

import numpy as np
from reference import metric_cases
from reference import metrics as scores_reference
from reference import metrics_people as reference
from scipy import stats
from variants import Variants

from facesiam_jax import metrics
from facesiam_jax.metrics import tally

# Student's quantile is a table of its integral.
_CLOSE = {"rtol": 1e-5, "atol": 1e-9}
_EXACT = {"rtol": 1e-12, "atol": 1e-12}
_THRESHOLDS = (0.5, 0.8, 2.0, 9.0, -9.0)


def _end(value):
  return math.nan if value is None else value


def _one_bad_person():
  """One person of fourteen causes most errors of both kinds."""
  scores, a, b = metric_cases.people(
    seed=3, num_people=14, images=2, effect=0.2
  )
  bad = (a == a[0]) | (b == a[0])
  return scores + np.where(a == b, -3.0, 3.0) * bad, a, b


def _some_as_bad_as_all():
  """Three of nine people have just the overall share of false non-matches."""
  ids = np.repeat(np.arange(9), 3)
  i, j = np.triu_indices(27, 1)
  a, b = ids[i], ids[j]
  # The genuine pairs of a person come in the order of the errors wanted.
  rank = np.array(
    [np.sum((a[:k] == n) & (b[:k] == n)) for k, n in enumerate(a)]
  )
  wrong = (a == b) & (rank < a // 3)
  return (a == b) * 1.0 - wrong, a, b


def _lone_pairs():
  """A person has genuine pairs only."""
  scores, a, b = metric_cases.people(seed=4)
  return (
    np.append(scores, [0.1, 0.9]),
    np.append(a, [77, 77]),
    np.append(b, [77, 77]),
  )


_CASES = [
  metric_cases.people(seed=0),
  metric_cases.people(seed=1, num_people=9, effect=1.5),
  # No effect of people: the covariances may sum to less than 0.
  metric_cases.people(seed=2, num_people=6, effect=0.0),
  _one_bad_person(),
  _some_as_bad_as_all(),
  _lone_pairs(),
]


def check_error_rate_intervals(function):
  for scores, a, b in _CASES:
    # Tenths, so that scores lie on the thresholds.
    scores = np.round(scores, 1)
    for threshold in _THRESHOLDS:
      for level in (0.95, 0.8):
        found = function(scores, a, b, threshold, level=level, min_people=2)
        for kind, genuine in ((found.fmr, False), (found.fnmr, True)):
          expected = reference.rate_interval(
            scores, a, b, threshold, genuine, level
          )
          np.testing.assert_allclose(
            [kind.rate, kind.low, kind.high, _end(kind.effective_pairs)],
            [_end(value) for value in expected],
            **_CLOSE,
          )


def _rate(errors, own, shared, quantile, units, level, power):
  rate = np.mean(errors)
  effective = None
  if rate in (0, 1):
    bound = min(-math.log(1 - level) / units, 1)
    ends = (0.0, bound) if rate == 0 else (1 - bound, 1.0)
  else:
    ends = reference.interval_ends(rate, own, shared, quantile, power)
    effective = rate * (1 - rate) / (own + shared)
  return metrics.RateInterval(
    rate, *ends, int(np.sum(errors)), len(errors), effective, 9, None
  )


def _counted(errors, a, b, centred):
  """{pair of people: pairs}, {pair of people: excess}."""
  numbers, excess = {}, {}
  for wrong, *pair in zip(errors, a, b, strict=True):
    key = min(pair), max(pair)
    numbers[key] = numbers.get(key, 0) + 1
    excess[key] = excess.get(key, 0) + wrong - errors.mean() * centred
  return numbers, excess


def _quantile(numbers, excess, level, tails, even):
  people = {person for pair in numbers for person in pair}
  root = {pair: n**0.5 if even else 1.0 for pair, n in numbers.items()}
  sums = np.array(
    [
      sum(e / root[pair] for pair, e in excess.items() if one in pair)
      for one in people
    ]
  )
  n = len(people)
  kurtosis = n * (sums**4).sum() / (sums**2).sum() ** 2
  freedom = min(2 * n / max(kurtosis - 1, 1e-9), n - 1) if tails else n - 1
  return stats.t.ppf((1 + level) / 2, freedom)


def _intervals(
  scores,
  a,
  b,
  threshold,
  *,
  level,
  min_people,
  raw=False,
  likeness=True,
  shared=True,
  factor=1.0,
  power=1.75,
  student=True,
  tails=True,
  even=True,
  strict=False,
  centred=True,
  image_units=False,
):
  """Intervals with one thing wrong."""
  result = []
  for genuine in (False, True):
    chosen = (a == b) == genuine
    below = np.less_equal if strict else np.less
    errors = below(scores[chosen], threshold) == genuine
    numbers, excess = _counted(errors, a[chosen], b[chosen], centred)
    units = errors.size if image_units else len(numbers)
    mean = errors.mean()
    own, cross = mean * (1 - mean) / errors.size, 0.0
    quantile = stats.norm.ppf((1 + level) / 2)
    if 0 < mean < 1 and not raw:
      if likeness:
        own = reference.own_variance(numbers, excess, mean)
      if shared and not genuine:
        cross = reference.shared_variance(numbers, excess) * factor
      if student:
        quantile = _quantile(numbers, excess, level, tails, even)
    result.append(_rate(errors, own, cross, quantile, units, level, power))
  return metrics.ErrorRateIntervals(*result)


def check_rule_of_three(function):
  for num in (1, 2, 7, 435):
    for level in (0.5, 0.95, 0.99):
      expected = min(-math.log(1 - level) / num, 1)
      np.testing.assert_allclose(function(num, level=level), expected, **_EXACT)


def check_person_bootstrap(function):
  """Copy by copy, on the same draws of people."""
  scores, a, b = metric_cases.people(5, images=2, drop=0.0)
  scores = np.round(scores, 1)
  seen = []

  def record(counts):
    seen.append(counts)
    return {"impostor": counts.num_impostor}

  result = function(
    record, scores, a, b, resamples=12, seed=4, min_people=2, level=0.5
  )
  people, rng, numbers = np.unique(a), np.random.default_rng(4), []
  for counts in seen:
    drawn = people[rng.integers(5, size=5)]
    pairs = scores_reference.resampled_pairs(scores, a, b, drawn)
    expected = tally.tally(*np.array(pairs).T)
    numbers.append(expected.num_impostor)
    for got, want in zip(counts, expected, strict=True):
      np.testing.assert_array_equal(got, want)
  assert len(seen) == 12
  np.testing.assert_allclose(
    result.intervals["impostor"], np.quantile(numbers, [0.25, 0.75]), **_EXACT
  )


def _bootstrap(
  statistics,
  scores,
  a,
  b,
  *,
  resamples,
  seed,
  level,
  min_people,
  weigh=lambda m, n: m * n,
  own=lambda m: m,
  replace=True,
  tail=None,
):
  rng = np.random.default_rng(seed)
  people = np.unique([a, b])
  results = []
  for _ in range(resamples):
    if replace:
      drawn = people[rng.integers(people.size, size=people.size)]
    else:
      drawn = rng.permutation(people)[: people.size // 2]
    m, n = ((drawn[:, None] == end).sum(axis=0) for end in (a, b))
    times = np.where(a == b, own(m), weigh(m, n)).astype(int)
    repeated = np.repeat(np.arange(a.size), times)
    results.append(
      statistics(tally.tally(scores[repeated], (a == b)[repeated]))
    )
  tail = (1 - level) / 2 if tail is None else tail
  return metrics.Bootstrap(
    {
      name: tuple(np.quantile([r[name] for r in results], [tail, 1 - tail]))
      for name in results[0]
    },
    None,
  )


VARIANTS = {
  "metrics.error_rate_intervals": Variants(
    metrics.error_rate_intervals,
    check_error_rate_intervals,
    {
      "pairs taken for independent": functools.partial(_intervals, raw=True),
      "pairs of the same two people unlike": functools.partial(
        _intervals, likeness=False
      ),
      "no shared people": functools.partial(_intervals, shared=False),
      "the factor of few people once more": functools.partial(
        _intervals, factor=1.2
      ),
      "Wilson's power": functools.partial(_intervals, power=1.0),
      "kurtosis ignored": functools.partial(_intervals, tails=False),
      "kurtosis of sums that many pairs rule": functools.partial(
        _intervals, even=False
      ),
      "above the threshold only": functools.partial(_intervals, strict=True),
      "normal quantile": functools.partial(_intervals, student=False),
      "not centred": functools.partial(_intervals, centred=False),
      "rule of three on images": functools.partial(
        _intervals, image_units=True
      ),
      "kinds swapped": lambda *a, **k: metrics.ErrorRateIntervals(
        *metrics.error_rate_intervals(*a, **k)[::-1]
      ),
    },
  ),
  "metrics.rule_of_three": Variants(
    metrics.rule_of_three,
    check_rule_of_three,
    {
      "three whatever the level": lambda n, level: min(3 / n, 1),
      "not cut at 1": lambda n, level: -math.log(1 - level) / n,
      "two-sided": lambda n, level: min(-math.log((1 - level) / 2) / n, 1),
      "exact binomial": lambda n, level: 1 - (1 - level) ** (1 / n),
      "root of n": lambda n, level: min(-math.log(1 - level) / n**0.5, 1),
      "level for its complement": lambda n, level: min(-math.log(level) / n, 1),
    },
  ),
  "metrics.person_bootstrap": Variants(
    metrics.person_bootstrap,
    check_person_bootstrap,
    {
      "pairs of a person with their copy": functools.partial(
        _bootstrap, own=lambda m: m * m
      ),
      "impostor pairs once": functools.partial(
        _bootstrap, weigh=lambda m, n: (m > 0) & (n > 0)
      ),
      "copies added": functools.partial(
        _bootstrap, weigh=lambda m, n: (m + n) * (m > 0) * (n > 0)
      ),
      "one end only": functools.partial(_bootstrap, weigh=lambda m, n: m),
      "without replacement": functools.partial(_bootstrap, replace=False),
      "whole range": functools.partial(_bootstrap, tail=0.0),
    },
  ),
}
