"""Plausible mistakes in one-shot and open-set identification."""

import functools

import numpy as np
from reference import metric_cases
from reference import metrics_search as reference
from variants import Variants

from facesiam_jax import metrics

_DRAWS = 800
# Three standard errors of the drawn shares, with room.
_DRAWN = {"rtol": 0, "atol": 0.03}
_EXACT = {"rtol": 0, "atol": 1e-12}
_THRESHOLDS = (-0.6, 0.4, 1.2, 1.9)
_SEARCHES = [metric_cases.search(seed, ties=seed > 1) for seed in range(4)]
_KNOWN = [
  metric_cases.search(seed, ties=seed > 1, strangers=False) for seed in range(4)
]


@functools.cache
def _one_shot_cases():
  cases = []
  for seed, ties, ways in ((0, False, 4), (1, True, 4), (2, True, 3)):
    similarity, ids = metric_cases.square(seed, ties, sizes=(4, 3, 1, 2))
    cases.append(
      (similarity, ids, ways, reference.expected_cmc(similarity, ids, ways))
    )
  return cases


def check_rank_counts(function):
  for similarity, ids, ways, expected in _one_shot_cases():
    counts, draws, found_ways = function(
      similarity, ids, seed=1, draws=_DRAWS, ways=ways
    )
    assert (draws, found_ways) == (_DRAWS, ways)
    if ways == 4:
      # Ten images of four people: six probes in every draw.
      assert np.sum(counts) == 6 * _DRAWS
    np.testing.assert_allclose(
      np.cumsum(counts) / np.sum(counts), expected, **_DRAWN
    )


def check_cmc(function):
  for similarity, ids, ways, expected in _one_shot_cases():
    found = function(similarity, ids, seed=1, draws=_DRAWS, ways=ways)
    np.testing.assert_allclose(found, expected, **_DRAWN)


def check_one_shot_accuracy(function):
  for similarity, ids, ways, expected in _one_shot_cases():
    found = function(similarity, ids, seed=1, draws=_DRAWS, ways=ways)
    np.testing.assert_allclose(found, expected[0], **_DRAWN)


def _rank_counts(
  similarity,
  ids,
  *,
  seed,
  draws,
  ways,
  generous=False,
  with_self=False,
  one_draw=False,
  first_images=False,
):
  rng = np.random.default_rng(seed)
  counts = np.zeros(ways, int)
  people = np.unique(ids)
  similarity = similarity.copy()
  np.fill_diagonal(similarity, 9.0)
  for draw in range(draws):
    if draw == 0 or not one_draw:
      chosen = rng.permutation(people)[:ways]
      pick = (lambda rows: rows[0]) if first_images else rng.choice
      references = [pick(np.flatnonzero(ids == p)) for p in chosen]
    for probe in np.flatnonzero(np.isin(ids, chosen)):
      if probe in references and not with_self:
        continue
      row = similarity[probe, references]
      own = row[chosen == ids[probe]]
      ahead = row > own if generous else row >= own
      counts[ahead.sum() - (not generous)] += 1
  return metrics.RankCounts(counts, draws, ways)


def _curve(**mistake):
  def function(*args, **kwargs):
    counts = _rank_counts(*args, **kwargs, **mistake).counts
    return np.cumsum(counts) / counts.sum()

  return function


def _transposed(function):
  return lambda s, *args, **kwargs: function(s.T, *args, **kwargs)


def _negated(function):
  return lambda s, *args, **kwargs: function(-s, *args, **kwargs)


def check_rank_k(function):
  for case in _KNOWN:
    for k in (1, 2, 3, 5):
      expected = reference.rank_k(*case, k)
      np.testing.assert_allclose(function(*case, k=k), expected, **_EXACT)


def _rank_k(
  similarity, probes, gallery, k, templates=False, mean=False, generous=False
):
  people = np.unique(gallery)
  right = 0
  for row, person in zip(similarity, probes, strict=True):
    if templates:
      best = np.argsort(-row, kind="stable")[:k]
      right += person in gallery[best]
      continue
    pool = np.mean if mean else np.max
    scores = np.array([pool(row[gallery == p]) for p in people])
    own = scores[people == person]
    ahead = scores > own if generous else scores >= own
    right += ahead.sum() - (not generous) < k
  return right / len(probes)


def check_open_set_curve(function):
  for case in _SEARCHES:
    for rank in (1, 2):
      expected = np.array(reference.open_set_curve(*case, rank))
      found = np.stack(function(*case, rank=rank), axis=1)
      np.testing.assert_allclose(found, expected, **_EXACT)


def check_open_set_rates_at(function):
  for case in _SEARCHES:
    for rank in (1, 2):
      for threshold in (*_THRESHOLDS, *np.unique(case[0])[-9:]):
        expected = reference.open_set_rates(*case, threshold, rank)
        found = function(*case, threshold, rank=rank)
        np.testing.assert_allclose(found, expected, **_EXACT)


def check_fnir_at_fpir(function):
  for case in _SEARCHES:
    for rank in (1, 2):
      for target in (0.0, 0.15, 0.25, 0.5, 1.0):
        fnir, place = reference.fnir_at_fpir(*case, target, rank)
        if place is None:
          outcome = reference.open_set_curve(*case, rank)
          place = np.nextafter(outcome[1][0], np.inf)
        found = function(*case, target, rank=rank)
        np.testing.assert_allclose(found, (fnir, place), **_EXACT)


def _rates(
  similarity,
  probes,
  gallery,
  threshold,
  *,
  rank=1,
  any_rank=False,
  no_threshold=False,
  every_pair=False,
  strict=False,
  generous=False,
  all_searches=False,
):
  """FPIR and FNIR with one thing wrong."""
  people = np.unique(gallery)
  mated = np.isin(probes, people)
  over = np.greater if strict else np.greater_equal
  alarms, missed = [], []
  for row, person in zip(similarity, probes, strict=True):
    best = np.array([row[gallery == p].max() for p in people])
    if person not in people:
      alarms.append(
        np.mean(over(row, threshold))
        if every_pair
        else over(row.max(), threshold)
      )
      continue
    own = best[people == person][0]
    place = (best > own).sum() + 1 if generous else (best >= own).sum()
    hit = (any_rank or place <= rank) and (no_threshold or over(own, threshold))
    missed.append(not hit)
  if all_searches:
    return sum(alarms) / len(mated), sum(missed) / len(mated)
  return np.mean(alarms), np.mean(missed)


def _curve_of(case, rank, **mistake):
  thresholds = metrics.open_set_curve(*case, rank=rank).thresholds
  rates = [_rates(*case, t, rank=rank, **mistake) for t in thresholds]
  return thresholds, *np.transpose(rates)


def _at_target(*args, rank, compare=np.less_equal, **mistake):
  *case, target = args
  thresholds, fpir, fnir = _curve_of(case, rank, **mistake)
  above = np.nextafter(thresholds[1], np.inf)
  best = np.flatnonzero(compare(fpir, target))[-1]
  return fnir[best], above if best == 0 else thresholds[best]


def _nearest(*args, rank):
  *case, target = args
  thresholds, fpir, fnir = metrics.open_set_curve(*case, rank=rank)
  best = np.argmin(np.abs(fpir - target))
  return fnir[best], thresholds[best]


_MISTAKES = {
  "at any rank": {"any_rank": True},
  "without the threshold": {"no_threshold": True},
  "every comparison, not the highest": {"every_pair": True},
  "ties for the system": {"generous": True},
  "shares of all searches": {"all_searches": True},
}

_ONE_SHOT = {
  "ties for the system": {"generous": True},
  "the probe as its own reference": {"with_self": True},
  "one draw for all": {"one_draw": True},
  "first images for random ones": {"first_images": True},
}

VARIANTS = {
  "metrics.rank_counts": Variants(
    metrics.rank_counts,
    check_rank_counts,
    {
      "rows and columns swapped": _transposed(metrics.rank_counts),
      "distances for similarities": _negated(metrics.rank_counts),
      **{
        name: functools.partial(_rank_counts, **mistake)
        for name, mistake in _ONE_SHOT.items()
      },
    },
  ),
  "metrics.cmc": Variants(
    metrics.cmc,
    check_cmc,
    {
      "rows and columns swapped": _transposed(metrics.cmc),
      "not cumulative": lambda *a, **k: np.diff(
        metrics.cmc(*a, **k), prepend=0
      ),
      **{name: _curve(**mistake) for name, mistake in _ONE_SHOT.items()},
    },
  ),
  "metrics.one_shot_accuracy": Variants(
    metrics.one_shot_accuracy,
    check_one_shot_accuracy,
    {
      "rows and columns swapped": _transposed(metrics.one_shot_accuracy),
      "rank 2": lambda *a, **k: metrics.cmc(*a, **k)[1],
      **{
        name: lambda *a, m=mistake, **k: _curve(**m)(*a, **k)[0]
        for name, mistake in _ONE_SHOT.items()
      },
    },
  ),
  "metrics.rank_k": Variants(
    metrics.rank_k,
    check_rank_k,
    {
      "templates for people": functools.partial(_rank_k, templates=True),
      "mean of templates": functools.partial(_rank_k, mean=True),
      "ties for the system": functools.partial(_rank_k, generous=True),
      "below k": lambda *a, k: _rank_k(*a, k - 1),
      "distances for similarities": _negated(metrics.rank_k),
    },
  ),
  "metrics.open_set_curve": Variants(
    metrics.open_set_curve,
    check_open_set_curve,
    {
      "rates swapped": lambda *a, rank: [
        metrics.open_set_curve(*a, rank=rank)[n] for n in (0, 2, 1)
      ],
      **{
        name: lambda *a, rank, m=mistake: _curve_of(a, rank, **m)
        for name, mistake in _MISTAKES.items()
      },
    },
  ),
  "metrics.open_set_rates_at": Variants(
    metrics.open_set_rates_at,
    check_open_set_rates_at,
    {
      "above the threshold only": functools.partial(_rates, strict=True),
      "rank 1 always": lambda *a, rank: metrics.open_set_rates_at(*a),
      **{
        name: functools.partial(_rates, **mistake)
        for name, mistake in _MISTAKES.items()
      },
    },
  ),
  "metrics.fnir_at_fpir": Variants(
    metrics.fnir_at_fpir,
    check_fnir_at_fpir,
    {
      "nearest rate": _nearest,
      "rate below the target only": lambda *a, rank: metrics.fnir_at_fpir(
        *a[:-1], max(a[-1] - 1e-9, 0), rank=rank
      ),
      **{
        name: functools.partial(_at_target, **mistake)
        for name, mistake in _MISTAKES.items()
      },
    },
  ),
}
