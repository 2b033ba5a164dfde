"""Tests of facesiam_jax.metrics.paired."""

import itertools

import numpy as np
import pytest
from wrong import metrics_paired as variants
from wrong.metrics_paired import rates, slow, systems

from facesiam_jax.metrics import calibration, paired, tally


def _run(scores, a, b, **settings):
  return paired.paired_bootstrap(
    [rates] * len(scores), scores, a, b, **settings
  )


def test_differences_are_those_of_pairs_written_out():
  variants.check_paired_bootstrap(paired.paired_bootstrap)


def test_people_drawn_anew_or_pairs_drawn_are_not_it():
  """Wider than paired, and narrower than people: both are rejected."""
  scores, a, b = systems(10, 3, own=0.1)
  found = _run(scores, a, b, resamples=25, min_people=10)
  one = found.differences[0, 1]["auc"]
  _, low, high, _ = slow(scores, a, b, anew=True)["auc"]
  assert high - low > 3 * (one.high - one.low)
  # The difference of two systems that lose on hard people differs by person.
  hard = [scores[0], scores[0] - 1.5 * (a == b) * (a % 3 == 0)]
  one = _run(hard, a, b, resamples=25, min_people=10).differences[0, 1]["auc"]
  _, low, high, _ = slow(hard, a, b, of_pairs=True)["auc"]
  assert high - low < 0.8 * (one.high - one.low)


def test_a_planted_difference_is_found_and_none_with_itself():
  scores, a, b = systems(40, 3, own=0.1, loss=0.2)
  found = _run([*scores, scores[0]], a, b, resamples=150)
  planted = found.differences[0, 1]["auc"]
  assert planted.clear and planted.low > 0 and planted.p_value < 0.02
  for name, one in found.differences[0, 2].items():
    assert one == (0.0, 0.0, 0.0, 1.0), name
    assert not one.clear
  # What alone would not tell them apart: each one's interval holds the other.
  low, high = found.intervals[0]["auc"]
  assert low < found.values[1]["auc"] < high


def test_equal_systems_are_told_apart_no_more_often_than_chance():
  clear = [
    _run(*systems(30, 2, seed=seed), resamples=60).differences[0, 1]["auc"]
    for seed in range(25)
  ]
  assert sum(one.clear for one in clear) <= 4
  assert np.mean([one.p_value for one in clear]) > 0.3


def test_own_intervals_are_those_of_the_bootstrap_alone():
  scores, a, b = systems(30, 2)
  found = _run(scores, a, b, resamples=50, seed=3)
  for system, intervals in zip(scores, found.intervals, strict=True):
    alone = calibration.person_bootstrap(
      lambda counts: rates(counts, None), system, a, b, resamples=50, seed=3
    )
    assert intervals == alone.intervals
  joined = _run(
    scores, a, b, resamples=50, seed=3, cuts=[[variants.THRESHOLD]] * 2
  )
  assert joined.intervals == found.intervals


def test_statistics_are_told_how_often_each_person_was_drawn():
  scores, a, b = systems(30, 2)
  seen = []
  count = lambda counts, copies: seen.append(copies) or {"n": copies[0]}
  paired.paired_bootstrap([count], scores[:1], a + 7, b + 7, resamples=5)
  assert all(copies.sum() == 30 for copies in seen) and len(seen) == 6


def test_order_turns_the_sign():
  scores, a, b = systems(30, 2, loss=0.5)
  one = _run(scores, a, b, resamples=60).differences[0, 1]["auc"]
  other = _run(scores[::-1], a, b, resamples=60).differences[0, 1]["auc"]
  np.testing.assert_allclose(
    other, (-one.value, -one.high, -one.low, one.p_value), atol=1e-12
  )


def test_metrics_that_one_lacks_are_not_compared():
  scores, a, b = systems(30, 2)
  less = lambda counts, copies: {"auc": tally.auc_of(counts)}
  found = paired.paired_bootstrap([rates, less], scores, a, b, resamples=20)
  assert found.differences[0, 1].keys() == {"auc"}


def test_few_people_have_differences_without_intervals():
  found = _run(*systems(29, 2))
  assert found.intervals is None
  assert "at least 30 people, these pairs have 29" in found.reason
  one = found.differences[0, 1]["auc"]
  assert one.low is one.high is one.p_value is None and not one.clear


@pytest.mark.parametrize(
  "change, message",
  [
    ({"resamples": 0}, "resamples must be at least 1"),
    ({"level": 1.0}, "level must lie inside 0..1"),
    ({"score_sets": []}, "score_sets must be as many as statistics"),
    ({"people_a": [1, 2]}, "must have the shape of scores"),
    ({"nan": True}, "scores must be finite"),
  ],
)
def test_bad_input_is_refused_by_name(change, message):
  scores, a, b = systems(30, 2)
  change = dict(change)
  if change.pop("nan", False):
    scores[1] = scores[1] * np.nan
  arguments = {"score_sets": scores, "people_a": a, "people_b": b} | change
  with pytest.raises(ValueError, match=message):
    paired.paired_bootstrap([rates] * 2, **arguments)


def test_every_two_systems_are_compared():
  scores, a, b = systems(30, 2)
  found = _run([*scores, scores[0]], a, b, resamples=5)
  assert [*found.differences] == [*itertools.combinations(range(3), 2)]


def test_holm_against_a_loop():
  variants.check_holm(paired.holm)


@pytest.mark.parametrize("wrong", [[1.1], [np.nan], [[0.5]]])
def test_holm_refuses_what_is_no_p_value(wrong):
  with pytest.raises(ValueError, match="p_values"):
    paired.holm(wrong)
