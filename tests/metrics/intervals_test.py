"""Tests of facesiam_jax.metrics.intervals."""

import functools
import math

import numpy as np
import pytest
from reference import metric_cases, metrics_people
from scipy import stats

from facesiam_jax import metrics
from facesiam_jax.metrics import intervals

_SCORES, _A, _B = metric_cases.people(num_people=12, images=3)


def _at(threshold, **kwargs):
  return metrics.error_rate_intervals(
    _SCORES, _A, _B, threshold, **({"min_people": 2} | kwargs)
  )


@functools.cache
def _pairs(num_people, images):
  ids = np.repeat(np.arange(num_people), images)
  i, j = np.triu_indices(ids.size, 1)
  return ids[i], ids[j]


def _experiment(num_people, images, rng, share):
  """Scores with variance 1, of which people cause `share` in impostor pairs.

  The rest is half of the two people together, half of the images. Genuine
  pairs have mean 0 too, so that one threshold has one true rate on each side.
  """
  a, b = _pairs(num_people, images)
  person = rng.normal(size=num_people) * math.sqrt(share / 2)
  two = rng.normal(size=(num_people, num_people)) * math.sqrt((1 - share) / 2)
  noise = rng.normal(size=a.size) * math.sqrt((1 - share) / 2)
  own = np.where(a == b, math.sqrt(2), 2) / 2
  return (person[a] + person[b]) * own + two[a, b] + noise, a, b


def _cover(num_people, share, experiments=120, rate=0.1):
  """How often FMR and FNMR intervals, and raw Wilson's of FMR, hold `rate`."""
  rng = np.random.default_rng(num_people)
  high = stats.norm.ppf(1 - rate)
  held = np.zeros(3)
  for _ in range(experiments):
    scores, a, b = _experiment(num_people, 3, rng, share)
    fmr = metrics.error_rate_intervals(scores, a, b, high, min_people=2).fmr
    fnmr = metrics.error_rate_intervals(scores, a, b, -high, min_people=2).fnmr
    raw = metrics_people.raw_wilson((scores >= high)[a != b])
    ends = [(fmr.low, fmr.high), (fnmr.low, fnmr.high), raw]
    held += [low <= rate <= top for low, top in ends]
  return held / experiments


@pytest.mark.parametrize("num_people, raw", [(10, 0.6), (30, 0.45), (58, 0.4)])
def test_cover_of_a_nominal_95_percent(num_people, raw):
  """People cause an eighth of the variance of impostor scores."""
  fmr, fnmr, naive = _cover(num_people, 0.125)
  assert naive < raw
  # In 600 experiments: 0.92 to 0.95 for FMR, 0.96 to 0.98 for FNMR; three
  # standard errors of 120 are 0.07.
  assert fmr > 0.86
  assert fnmr > 0.9


def test_cover_where_people_cause_half_of_the_variance():
  fmr, fnmr, naive = _cover(58, 0.5)
  assert naive < 0.3
  assert fmr > 0.87
  assert fnmr > 0.9


def test_below_thirty_people_there_is_no_claim():
  for num_people, refused in ((29, True), (30, False)):
    scores, a, b = _experiment(num_people, 2, np.random.default_rng(0), 0.2)
    for kind in metrics.error_rate_intervals(scores, a, b, 1.0):
      assert (kind.low is None) == (kind.high is None) == refused
      assert kind.people == num_people
      # The rate itself is told.
      assert 0 < kind.rate < 1
      assert kind.reason == (
        "an interval needs at least 30 people, these pairs have 29"
        if refused
        else None
      )


def test_people_are_counted_for_each_kind():
  # Forty people, of whom only five have a second image.
  ids = np.append(np.arange(40), np.arange(5))
  i, j = np.triu_indices(ids.size, 1)
  scores = np.random.default_rng(0).normal(size=i.size)
  found = metrics.error_rate_intervals(scores, ids[i], ids[j], 1.0)
  assert found.fmr.low is not None
  assert found.fnmr.low is None
  assert found.fnmr.reason.endswith("these pairs have 5")


def test_no_error_gives_the_rule_of_three_on_people():
  fmr, fnmr = _at(99.0).fmr, _at(-99.0).fnmr
  assert (fmr.rate, fmr.low, fmr.errors) == (0.0, 0.0, 0)
  num_pairs = len(
    {frozenset(p) for p in zip(_A, _B, strict=True) if len(set(p)) == 2}
  )
  assert fmr.high == metrics.rule_of_three(num_pairs)
  assert fnmr.high == metrics.rule_of_three(fnmr.people)
  assert fmr.effective_pairs is None
  # Three images each, so images would promise more.
  assert fmr.high > 3 / fmr.pairs
  always = _at(-99.0).fmr
  assert (always.rate, always.high) == (1.0, 1.0)
  assert math.isclose(always.low, 1 - fmr.high)


@pytest.mark.parametrize("threshold", [0.0, 0.8, 2.0, 3.5])
def test_ends_enclose_the_rate_and_grow_with_the_level(threshold):
  rates = metrics.error_rates_at(_SCORES, _A == _B, threshold)
  narrow, wide = _at(threshold, level=0.5), _at(threshold, level=0.99)
  for rate, small, large in zip(rates, narrow, wide, strict=True):
    assert small.rate == large.rate == rate
    assert 0 <= large.low <= small.low <= rate
    assert rate <= small.high <= large.high <= 1
    assert 0 < small.effective_pairs <= small.pairs
    assert small.errors == round(rate * small.pairs)


def test_images_of_the_same_people_add_little():
  """Repeating every pair four times must not narrow the interval."""
  for drop, change in ((0.0, 1e-9), (0.1, 0.05)):
    # Where some pairs are missing, how alike the others are is told anew.
    scores, a, b = metric_cases.people(num_people=12, images=3, drop=drop)
    times = np.repeat(np.arange(scores.size), 4)
    once, often = (
      metrics.error_rate_intervals(scores[k], a[k], b[k], 1.0, min_people=2)
      for k in (slice(None), times)
    )
    for one, many in zip(once, often, strict=True):
      width = one.high - one.low
      assert abs(many.high - many.low - width) <= change * width
      assert many.pairs == 4 * one.pairs
    raw = metrics_people.raw_wilson((scores[times] >= 1.0)[(a != b)[times]])
    assert often.fmr.high - often.fmr.low > 1.5 * (raw[1] - raw[0])


def test_independent_pairs_count_as_many():
  # One pair for each two people and no effect of either.
  a, b = _pairs(60, 1)
  scores = np.random.default_rng(0).normal(size=a.size)
  ends = np.append(np.arange(60), a), np.append(np.arange(60), b)
  found = metrics.error_rate_intervals(
    np.append(np.full(60, 9.0), scores), *ends, 1.0
  ).fmr
  assert 0.5 * found.pairs < found.effective_pairs <= found.pairs


def test_order_names_and_ends_of_pairs_do_not_matter():
  base = _at(1.0)
  order = np.random.default_rng(0).permutation(_SCORES.size)
  names = {n: f"person {n}" for n in range(50)}
  swap = np.random.default_rng(1).random(_SCORES.size) < 0.5
  a, b = np.where(swap, _B, _A)[order], np.where(swap, _A, _B)[order]
  again = metrics.error_rate_intervals(
    _SCORES[order],
    np.array([names[n] for n in a]),
    np.array([names[n] for n in b]),
    1.0,
    min_people=2,
  )
  for one, other in zip(base, again, strict=True):
    np.testing.assert_allclose(one[:7], other[:7], rtol=1e-9)


def test_every_person_as_bad_as_every_other():
  """No spread over people: the sums are all 0, and the pairs decide."""
  ids = np.repeat(np.arange(30), 3)
  i, j = np.triu_indices(90, 1)
  same = ids[i] == ids[j]
  # One genuine pair of each person is wrong.
  wrong = same & (i % 3 == 0) & (j % 3 == 1)
  found = metrics.error_rate_intervals(
    same - 1.0 * wrong, ids[i], ids[j], 0.5
  ).fnmr
  assert math.isclose(found.rate, 1 / 3)
  assert found.pairs == 90
  assert math.isclose(found.effective_pairs, 90)
  quantile = stats.t.ppf(0.975, 29)
  expected = metrics_people.wilson(1 / 3, 90, quantile)
  np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-5)


@pytest.mark.parametrize("freedom", [1, 1.5, 2.07, 3, 9, 57, 1e3, 1e6])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99])
def test_student_quantile(freedom, level):
  expected = stats.t.ppf((1 + level) / 2, freedom)
  found = intervals.student(freedom, level)
  assert math.isclose(found, expected, rel_tol=2e-5)


def test_rule_of_three_is_three():
  assert abs(metrics.rule_of_three(1000) - 0.003) < 1e-5
  assert metrics.rule_of_three(1) == 1.0
  # With no error in n trials, a rate at the bound is seen 5 % of the time.
  n = 435
  assert abs((1 - metrics.rule_of_three(n)) ** n - 0.05) < 0.001


def test_bad_input_is_refused_by_name():
  for num in (0, -3):
    with pytest.raises(ValueError, match="num_units must be at least 1"):
      metrics.rule_of_three(num)
  for level in (0.0, 1.0, 95, math.nan):
    with pytest.raises(ValueError, match="level must lie inside 0..1"):
      metrics.rule_of_three(9, level=level)
    with pytest.raises(ValueError, match="level must lie inside 0..1"):
      _at(1.0, level=level)
  with pytest.raises(ValueError, match="threshold must be a number"):
    _at(math.nan)
  check = metrics.error_rate_intervals
  with pytest.raises(ValueError, match="people_a and people_b must have the"):
    check(_SCORES, _A[:-1], _B, 1.0)
  with pytest.raises(ValueError, match="scores must be finite"):
    check(_SCORES * math.nan, _A, _B, 1.0)
  with pytest.raises(ValueError, match="scores must not be empty"):
    check([], [], [], 1.0)
  with pytest.raises(ValueError, match="same must hold at least one"):
    check(_SCORES, _A, _A, 1.0)


def test_one_two_and_three_people_by_hand():
  """The corrections for few people, and where likeness is all or nothing."""
  # Genuine: 4 pairs of each of two people, 2 wrong ones of the first. Sums of
  # error minus rate are 1 and -1: variance 2 / 8^2 x 2 = 1 / 16.
  scores = np.array([0, 0, 1, 1, 1, 1, 1, 1, 0], float)
  a, b = np.repeat([0, 1, 0], [4, 4, 1]), np.repeat([0, 1], [4, 5])
  found = metrics.error_rate_intervals(scores, a, b, 0.5, min_people=1).fnmr
  assert math.isclose(found.effective_pairs, 0.25 * 0.75 * 16)
  # One person differs from nobody: the pairs decide.
  one = a + b != 2
  found = metrics.error_rate_intervals(
    scores[one], a[one], b[one], 0.5, min_people=1
  ).fnmr
  assert found.effective_pairs == 4
  # Impostors: two pairs of each two of three people, those of the first wrong.
  # The two go together always, so that there are three trials; e = 4/3, -2/3,
  # -2/3 share nothing more: their products sum to less than 0.
  a, b = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([1, 1, 2, 2, 2, 2, 2])
  scores = np.array([1, 1, 0, 0, 0, 0, 1], float)
  found = metrics.error_rate_intervals(scores, a, b, 0.5, min_people=1).fmr
  assert math.isclose(found.effective_pairs, 3)


def test_what_a_person_shares_by_hand():
  """Of six people the first is taken for all others: 5 errors of 15 pairs."""
  i, j = np.triu_indices(6, 1)
  a, b = np.append(i, 0), np.append(j, 0)
  scores = np.append(1.0 * (i == 0), 1.0)
  found = metrics.error_rate_intervals(scores, a, b, 0.5, min_people=1).fmr
  # e = 2/3 five times and -1/3 ten times, squares 10/3; sums of people 10/3 and
  # -2/3 five times, squares 120/9; shared 120/9 - 20/3 = 20/3 over 6 x 5 x 4
  # products: 1/18 each, times 120 / 15^2 and 6 / 4 for few people.
  own, shared = 2 / 9 / 15, 120 / 18 / 225 * 6 / 4
  assert math.isclose(found.effective_pairs, 2 / 9 / (own + shared))
  expected = metrics_people.interval_ends(
    1 / 3, own, shared, stats.t.ppf(0.975, 2 * 6 / (4.2 - 1))
  )
  np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-4)


@pytest.mark.parametrize(
  "number, caution",
  [(0, "no error was seen"), (1, "only 1 people"), (9, "only 9"), (10, None)],
)
def test_caution_where_false_non_matches_are_of_few(number, caution):
  ids = np.repeat(np.arange(40), 2)
  i, j = np.triu_indices(80, 1)
  a, b = ids[i], ids[j]
  scores = 1.0 * ((a == b) & (a >= number))
  found = metrics.error_rate_intervals(scores, a, b, 0.5).fnmr
  assert found.low is not None
  assert (found.caution or "").startswith(caution or "")
  assert (found.caution is None) == (caution is None)
  # A refusal says it all.
  few = metrics.error_rate_intervals(scores, a, b, 0.5, min_people=41).fnmr
  assert few.reason and few.caution is None


@pytest.mark.parametrize(
  "people, number, caution",
  [
    (100, 0, "no error was seen"),
    (100, 38, "of 100 people 38 are in false matches"),
    (100, 40, None),
    (99, 40, "of 99 people 40 are in false matches"),
  ],
)
def test_caution_where_false_matches_are_of_few(people, number, caution):
  i, j = np.triu_indices(people, 1)
  a, b = np.append(i, 0), np.append(j, 0)
  # Each of them is taken for one other.
  scores = 1.0 * ((a == b) | (a % 2 == 0) & (b == a + 1) & (a < number))
  found = metrics.error_rate_intervals(scores, a, b, 0.5).fmr
  assert found.errors == number // 2 and found.low is not None
  assert (found.caution or "").startswith(caution or "")
  assert (found.caution is None) == (caution is None)
