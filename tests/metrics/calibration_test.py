"""Tests of facesiam_jax.metrics.calibration."""

import math

import numpy as np
import pytest
from reference import metrics_calibration as reference

from facesiam_jax.metrics import calibration, resampling, tally


def _scores(num_genuine, num_impostor, seed=0):
  """Equal-variance normal scores, whose true logit is 2 x - 2."""
  rng = np.random.default_rng(seed)
  same = np.repeat([1, 0], [num_genuine, num_impostor])
  return rng.normal(size=same.size) + 2.0 * same, same


@pytest.mark.parametrize(
  "scores, same",
  [
    _scores(17, 53),
    (-_scores(17, 53)[0], _scores(17, 53)[1]),
    (1e4 + 1e-3 * _scores(17, 53)[0], _scores(17, 53)[1]),
    (np.array([5.0, 4.0, 1.0, 0.0, -1.0]), np.array([1, 1, 0, 0, 0])),
    (np.array([1.0, 0.0]), np.array([1, 0])),
    (np.array([1.0, 1.0, 1.0, 0.0]), np.array([1, 0, 0, 0])),
  ],
)
def test_platt_gradient_vanishes(scores, same):
  w, b = calibration.fit_platt(scores, same)
  assert math.isfinite(w) and math.isfinite(b)
  # In standardised units, where a gradient of 1 is a large one.
  centre, scale = scores.mean(), scores.std()
  standard = (scores - centre) / scale
  gradient = reference.platt_gradient(w * scale, b + w * centre, standard, same)
  assert np.abs(gradient).max() < 1e-7


def test_platt_finds_the_true_logit_whatever_the_share_of_impostors():
  for num_impostor in (2000, 60000):
    w, b = calibration.fit_platt(*_scores(2000, num_impostor))
    assert abs(w - 2) < 0.15
    assert abs(b + 2) < 0.25


def test_platt_removes_the_prior_of_the_fitting_set():
  scores, same = _scores(300, 30000)
  w, b = calibration.fit_platt(scores, same)
  ours = reference.cllr(w * scores + b, same)
  # What a plain logistic regression would give: the log prior odds left in.
  kept = reference.cllr(w * scores + b + math.log(300 / 30000), same)
  assert ours < 0.6 < 1.5 < kept


def test_platt_stays_finite_and_ordered_on_separable_scores():
  for gap in (1e-6, 1.0, 1e6):
    w, b = calibration.fit_platt([gap, 0.9 * gap, 0.1 * gap, 0], [1, 1, 0, 0])
    assert 0 < w * gap < 50
    assert abs(w * gap / 2 + b) < 1e-6


def test_platt_refuses_bad_input_by_name():
  with pytest.raises(ValueError, match="scores must differ"):
    calibration.fit_platt([0.5, 0.5], [0, 1])
  with pytest.raises(ValueError, match="scores must be finite"):
    calibration.fit_platt([0.5, math.nan], [0, 1])
  with pytest.raises(ValueError, match="same must hold at least one"):
    calibration.fit_platt([0.5, 0.6], [1, 1])


def _people(num_people, images=3, seed=0, effect=0.0):
  """Scores of all pairs, with an optional effect of each person."""
  rng = np.random.default_rng(seed)
  ids = np.repeat(np.arange(num_people), images)
  i, j = np.triu_indices(ids.size, 1)
  a, b = ids[i], ids[j]
  per_person = effect * rng.normal(size=num_people)
  scores = rng.normal(size=i.size) + 2.0 * (a == b)
  return scores + per_person[a] + per_person[b], a, b


def _rates(counts):
  return tally.error_rates_of(counts, 1.0)._asdict()


def test_bootstrap_interval_holds_the_estimate_and_is_reproducible():
  scores, a, b = _people(40)
  result = calibration.person_bootstrap(_rates, scores, a, b, resamples=300)
  again = calibration.person_bootstrap(_rates, scores, a, b, resamples=300)
  assert result == again
  assert result.reason is None
  estimate = _rates(tally.tally(scores, a == b))
  for name, (low, high) in result.intervals.items():
    assert low < estimate[name] < high
  narrow = calibration.person_bootstrap(
    _rates, scores, a, b, resamples=300, level=0.5
  )
  for name, (low, high) in narrow.intervals.items():
    assert result.intervals[name][0] < low < high < result.intervals[name][1]


def test_bootstrap_of_few_people_comes_with_a_caution():
  for number, unsure in ((99, True), (100, False)):
    case = _people(number, images=2)
    found = calibration.person_bootstrap(_rates, *case, resamples=2)
    assert found.intervals and (found.caution is not None) == unsure


def test_bootstrap_is_wider_than_one_that_draws_pairs():
  scores, a, b = _people(40, effect=1.0)
  interval = calibration.person_bootstrap(
    _rates, scores, a, b, resamples=300
  ).intervals["fmr"]
  rng = np.random.default_rng(0)
  impostor = scores[a != b] >= 1.0
  naive = [rng.choice(impostor, impostor.size).mean() for _ in range(300)]
  low, high = np.quantile(naive, [0.025, 0.975])
  assert interval[1] - interval[0] > 2 * (high - low)


@pytest.mark.slow
def test_bootstrap_covers_the_truth():
  truth = 1 - 0.5 * (1 + math.erf(1 / math.sqrt(2)))
  hits = 0
  for seed in range(60):
    scores, a, b = _people(40, seed=seed)
    low, high = calibration.person_bootstrap(
      _rates, scores, a, b, resamples=200
    ).intervals["fnmr"]
    hits += low <= truth <= high
  assert hits >= 51


@pytest.mark.parametrize("threshold", [None, 1.0])
def test_runs_of_impostors_counted_together_change_no_rate(threshold):
  scores, a, b = _people(40, images=2, effect=0.5)
  # Ties of both kinds, and a threshold that is a score.
  scores = scores.round(2)
  sizes = []

  def statistics(counts):
    sizes.append(counts.values.size)
    return tally.summary_of(counts, threshold, {"tar": 0.05, "low": 0.3})

  every = calibration.person_bootstrap(
    statistics, scores, a, b, resamples=50
  ).intervals
  before = sum(sizes)
  cuts = [] if threshold is None else [threshold]
  found = calibration.person_bootstrap(
    statistics, scores, a, b, resamples=50, cuts=cuts
  ).intervals
  assert found == every
  assert sum(sizes) - before < 0.6 * before
  # Without its cut, the rates at a threshold would be others.
  if threshold is not None:
    none = calibration.person_bootstrap(
      statistics, scores, a, b, resamples=50, cuts=[]
    ).intervals
    assert none["eer"] == every["eer"]
    assert none["fmr"] != every["fmr"]


def test_bootstrap_refuses_few_people_and_says_why():
  scores, a, b = _people(29)
  result = calibration.person_bootstrap(_rates, scores, a, b)
  assert result.intervals is None
  assert result.reason == (
    "an interval needs at least 30 people, these pairs have 29"
  )
  assert calibration.person_bootstrap(
    _rates, *_people(30), resamples=20
  ).intervals


def test_bootstrap_refuses_when_resamples_lack_a_kind_of_pair():
  # A single person has two images: a third of the resamples miss them.
  ids = np.r_[0, np.arange(35)]
  i, j = np.triu_indices(ids.size, 1)
  scores = np.random.default_rng(0).normal(size=i.size)
  result = calibration.person_bootstrap(
    _rates, scores, ids[i], ids[j], resamples=100
  )
  assert result.intervals is None
  assert "of 100 resamples lacked genuine or impostor pairs" in result.reason


def test_bootstrap_bears_a_few_resamples_without_a_kind():
  # Three people have two images: one resample in 23 misses them all.
  ids = np.r_[0, 1, 2, np.arange(35)]
  i, j = np.triu_indices(ids.size, 1)
  scores = np.random.default_rng(0).normal(size=i.size)
  seen = []

  def count(counts):
    seen.append(counts)
    return {"genuine": counts.num_genuine}

  result = calibration.person_bootstrap(
    count, scores, ids[i], ids[j], resamples=100
  )
  assert 90 <= len(seen) < 100
  assert result.reason is None
  # A single resample is an interval of no width.
  one = calibration.person_bootstrap(_rates, *_people(30), resamples=1)
  assert all(low == high for low, high in one.intervals.values())


def test_bootstrap_refuses_bad_input_by_name():
  scores, a, b = _people(30, images=2)
  with pytest.raises(ValueError, match="people_a and people_b"):
    calibration.person_bootstrap(_rates, scores, a[:-1], b)
  with pytest.raises(ValueError, match="level must lie in 0..1"):
    calibration.person_bootstrap(_rates, scores, a, b, level=95)
  with pytest.raises(ValueError, match="resamples must be at least 1"):
    calibration.person_bootstrap(_rates, scores, a, b, resamples=0)
  with pytest.raises(ValueError, match="scores must be finite"):
    calibration.person_bootstrap(_rates, scores * np.nan, a, b)


def test_bootstrap_bears_a_tenth_of_resamples_without_a_kind(monkeypatch):
  scores, a, b = _people(30, images=2)
  whole = tally.tally(scores, a == b)
  for kept, refused in ((18, False), (17, True)):
    draws = iter([whole] * kept)
    monkeypatch.setattr(
      calibration, "_resampled_tallies", lambda *_, draws=draws: draws
    )
    result = calibration.person_bootstrap(_rates, scores, a, b, resamples=20)
    assert (result.intervals is None) == refused


@pytest.mark.parametrize("factor", [2.0**-900, 2.0**900])
def test_platt_knows_no_unit(factor):
  """Squares of such scores are 0 or infinite in float64."""
  scores, same = np.array([3.0, 1.0, 2.0, 0.0]), [1, 1, 0, 0]
  w, b = calibration.fit_platt(scores, same)
  assert calibration.fit_platt(factor * scores, same) == (w / factor, b)


def _old_tallies(scores, a, b, resamples, seed):
  """Every resample's counts of each distinct score, a pair at a time."""
  people = np.unique(np.append(a, b)).tolist()
  rng = np.random.default_rng(seed)
  for _ in range(resamples):
    drawn = rng.integers(len(people), size=len(people)).tolist()
    counts = {}
    for score, x, y in zip(
      scores.tolist(), a.tolist(), b.tolist(), strict=True
    ):
      times = drawn.count(people.index(x))
      if x != y:
        times *= drawn.count(people.index(y))
      row = counts.setdefault(score, [0, 0])
      row[int(x != y)] += times
    yield {value: row for value, row in counts.items() if any(row)}


@pytest.mark.parametrize("tile", [1, 7, 2**19])
def test_counts_are_those_of_pairs_taken_one_by_one(tile, monkeypatch):
  monkeypatch.setattr(resampling, "_TILE", tile)
  monkeypatch.setattr(resampling, "_TILE_GROUPS", 0)
  monkeypatch.setattr(resampling, "_MOST_DRAWS", 3)
  scores, a, b = _people(7, images=2, effect=0.5)
  scores, order = scores.round(1), np.random.default_rng(3).permutation(a.size)
  # Pairs in any order, and a pair of people either way round.
  scores, a, b = scores[order], a[order], b[order]
  a[::3], b[::3] = b[::3].copy(), a[::3].copy()
  seen = []
  calibration.person_bootstrap(
    lambda counts: seen.append(counts) or {},
    scores, a, b, resamples=20, seed=5, min_people=2,
  )  # fmt: skip
  wanted = list(_old_tallies(scores, a, b, 20, 5))
  assert len(seen) == len(wanted)
  for counts, rows in zip(seen, wanted, strict=True):
    values = sorted(rows, reverse=True)
    assert counts.values.tolist() == values
    assert counts.genuine.tolist() == [rows[v][0] for v in values]
    assert counts.impostor.tolist() == [rows[v][1] for v in values]


def test_counts_beyond_float32_stay_whole(monkeypatch):
  scores, a, b = _people(40)
  every = lambda counts: {"n": counts.num_impostor + counts.num_genuine}
  wanted = calibration.person_bootstrap(every, scores, a, b, resamples=20)
  monkeypatch.setattr(resampling, "_EXACT", 1)
  found = calibration.person_bootstrap(every, scores, a, b, resamples=20)
  assert found == wanted


@pytest.mark.parametrize("bins", [3, 16, 300])
@pytest.mark.parametrize("digits", [1, 7])
def test_bins_move_the_ends_no_farther_than_they_say(bins, digits):
  scores, a, b = _people(31, images=2, effect=0.5)
  scores, sizes = scores.round(digits), []

  def statistics(counts):
    sizes.append(counts.values.size)
    return tally.summary_of(counts, 1.0, {"tar": 0.05, "low": 0.3})

  settings = {"resamples": 60, "cuts": [1.0]}
  exact = calibration.person_bootstrap(statistics, scores, a, b, **settings)
  sizes.clear()
  found = calibration.person_bootstrap(
    statistics, scores, a, b, bins=bins, **settings
  )
  assert max(sizes) <= bins + 2
  assert exact.binning_error is None
  # One of the 31 genuine pairs, drawn a few times, is the least there is.
  assert 0 < found.binning_error < 8 / bins + 0.25
  for name, ends in exact.intervals.items():
    np.testing.assert_allclose(
      found.intervals[name], ends, rtol=0, atol=found.binning_error + 1e-12
    )
  # A threshold that is a cut is applied exactly.
  assert found.intervals["fmr"] == exact.intervals["fmr"]
  assert found.intervals["auc"] != exact.intervals["auc"] or bins == 300
  with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
    calibration.person_bootstrap(statistics, scores, a, b, bins=0)
