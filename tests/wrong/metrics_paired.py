"""Plausible mistakes in comparing systems, and in adjusting p-values."""

import functools

import numpy as np
from variants import Variants

from facesiam_jax import metrics
from facesiam_jax.metrics import paired, tally

THRESHOLD = 1.0
_RESAMPLES = 25
_LEVEL = 0.9


def rates(counts, copies):
  """Metrics of a resample, as an evaluation takes them."""
  del copies
  return tally.summary_of(counts, THRESHOLD, {})


def systems(num_people=30, images=3, *, own=0.3, loss=0.0, seed=0):
  """Two systems that find the same people hard; the second loses `loss`."""
  rng = np.random.default_rng(seed)
  ids = np.repeat(np.arange(num_people), images)
  i, j = np.triu_indices(ids.size, 1)
  a, b = ids[i], ids[j]
  hard = rng.normal(size=num_people)
  shared = hard[a] + hard[b] + rng.normal(size=a.size)
  scores = [
    2.0 * (a == b) + shared + own * rng.normal(size=a.size) for _ in range(2)
  ]
  scores[1] -= loss * (a == b)
  return scores, a, b


def _two_rates(scores, same):
  """Area under the curve and FMR of pairs written out, in float64."""
  genuine, impostor = scores[same][:, None], scores[~same][None]
  above = np.mean((genuine > impostor) + 0.5 * (genuine == impostor))
  return float(above), float(np.mean(impostor >= THRESHOLD))


def slow(
  scores,
  a,
  b,
  *,
  resamples=_RESAMPLES,
  level=0.95,
  anew=False,
  of_pairs=False,
  once=False,
  sign=1,
  one_sided=False,
  added=1,
  ties=True,
):
  """Every resample as a list of pairs; the flags are mistakes.

  Returns:
    name -> (value, low, high, p_value) of the first system minus the second.
  """
  rng, other = np.random.default_rng(0), np.random.default_rng(1)
  num_people = max(a.max(), b.max()) + 1
  found = []
  for _ in range(resamples):
    rows = []
    for system in range(2):
      if system == 0 or anew:
        drawn = list(rng.integers(num_people, size=num_people))
        chosen = [
          k
          for k in range(len(a))
          for _ in range(
            drawn.count(a[k])
            * (1 if a[k] == b[k] or once else drawn.count(b[k]))
          )
        ]
        if of_pairs:
          chosen = other.integers(len(a), size=len(a))
      rows.append(_two_rates(scores[system][chosen], (a == b)[chosen]))
    found.append(np.subtract(*rows) * sign)
  values = np.subtract(*(_two_rates(one, a == b) for one in scores)) * sign
  result = {}
  for n, name in enumerate(("auc", "fmr")):
    drawn = np.array(found)[:, n]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    below = sum(drawn <= 0) if ties else sum(drawn < 0)
    above = sum(drawn >= 0) if ties else sum(drawn > 0)
    p_value = (min(below, above) + added) / (resamples + added)
    p_value = min(1.0, p_value * (1 if one_sided else 2))
    result[name] = (values[n], low, high, p_value)
  return result


def _hard_people():
  """A system that loses where the other does not: by person, and with ties."""
  (first, _), a, b = systems(8, 2, own=0.1)
  return [first, first - 1.5 * (a == b) * (a % 3 == 0)], a, b


_CASES = [systems(8, 2), systems(8, 2, loss=0.3, seed=1), _hard_people()]


def check_paired_bootstrap(function):
  for scores, a, b in _CASES:
    found = function(
      [rates] * 2,
      scores,
      a,
      b,
      resamples=_RESAMPLES,
      level=_LEVEL,
      min_people=8,
    ).differences[0, 1]
    for name, want in slow(scores, a, b, level=_LEVEL).items():
      np.testing.assert_allclose(tuple(found[name]), want, 1e-9, 1e-12)


def _compared(statistics, scores, a, b, *, resamples, level, min_people, **bad):
  del statistics, min_people
  found = slow(scores, a, b, resamples=resamples, level=level, **bad)
  differences = {name: paired.Difference(*one) for name, one in found.items()}
  return paired.Paired([], None, {(0, 1): differences}, None)


def _wider(*args, level, **settings):
  return metrics.paired_bootstrap(*args, level=(1 + level) / 2, **settings)


def check_holm(function):
  rng = np.random.default_rng(5)
  cases = [np.round(rng.random(n) ** 3, 2) for n in (0, 1, 2, 7, 7)]
  for values in [*cases, np.array([0.01, 0.03, 0.04]), np.array([0.4, 0.4])]:
    order = sorted(range(len(values)), key=lambda i: values[i])
    want, largest = [0.0] * len(values), 0.0
    for rank, i in enumerate(order):
      largest = max(largest, min(1.0, (len(values) - rank) * float(values[i])))
      want[i] = largest
    np.testing.assert_allclose(function(values), want, rtol=1e-14)


def _adjusted(
  values, *, steps=True, monotone=True, most=1.0, back=True, up=False
):
  order = np.argsort(values)
  count = values.size
  factors = np.arange(count, 0, -1) if steps else np.full(count, count)
  if up:
    factors = count / np.arange(1, count + 1)
  scaled = values[order] * factors
  if monotone:
    scaled = np.maximum.accumulate(scaled)
  result = np.empty(count)
  result[order if back else np.arange(count)] = np.minimum(scaled, most)
  return result


VARIANTS = {
  "metrics.paired_bootstrap": Variants(
    metrics.paired_bootstrap,
    check_paired_bootstrap,
    {
      "people drawn anew for each system": functools.partial(
        _compared, anew=True
      ),
      "pairs drawn, not people": functools.partial(_compared, of_pairs=True),
      "impostor pairs by one end": functools.partial(_compared, once=True),
      "the second minus the first": functools.partial(_compared, sign=-1),
      "one-sided": functools.partial(_compared, one_sided=True),
      "none added": functools.partial(_compared, added=0),
      "ties on neither side": functools.partial(_compared, ties=False),
      "the level of one side": _wider,
    },
  ),
  "metrics.holm": Variants(
    metrics.holm,
    check_holm,
    {
      "Bonferroni": functools.partial(_adjusted, steps=False),
      "a larger p-value adjusted to less": functools.partial(
        _adjusted, monotone=False
      ),
      "above 1": functools.partial(_adjusted, most=np.inf),
      "left sorted": functools.partial(_adjusted, back=False),
      "Benjamini and Hochberg's factors": functools.partial(_adjusted, up=True),
    },
  ),
}
