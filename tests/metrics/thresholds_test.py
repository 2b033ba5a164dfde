"""Tests of facesiam_jax.metrics.thresholds."""

import math
import re

import numpy as np
import pytest

from facesiam_jax import metrics
from facesiam_jax.metrics import thresholds

# Distances of the third document: its threshold is 3.78.
_DOCUMENT = {
  "genuine_mean": 2.592,
  "genuine_sd": 0.979,
  "impostor_mean": 4.779,
  "impostor_sd": 1.726,
}


def _normals(genuine_mean, genuine_sd, impostor_mean, impostor_sd):
  return {
    "genuine_mean": genuine_mean,
    "genuine_sd": genuine_sd,
    "impostor_mean": impostor_mean,
    "impostor_sd": impostor_sd,
  }


def _swapped(moments):
  return _normals(
    moments["impostor_mean"],
    moments["impostor_sd"],
    moments["genuine_mean"],
    moments["genuine_sd"],
  )


def test_the_threshold_of_the_document():
  assert round(metrics.gaussian_threshold(**_DOCUMENT), 4) == 3.7789


def test_equal_spread_gives_the_midpoint():
  for low, high in ((1.0, 4.0), (4.0, 1.0), (-1e-9, 1e-9)):
    found = metrics.gaussian_threshold(**_normals(low, 0.7, high, 0.7))
    assert math.isclose(found, (low + high) / 2, abs_tol=1e-24)
  # And hardly any difference moves it hardly at all.
  near = metrics.gaussian_threshold(**_normals(1.0, 0.7, 4.0, 0.7 + 1e-13))
  assert math.isclose(near, 2.5, rel_tol=1e-12)


@pytest.mark.parametrize(
  "moments",
  [_DOCUMENT, _normals(0.6, 0.15, 0.1, 0.08), _normals(1.0, 2.0, 9.0, 0.3)],
)
def test_symmetric_and_equivariant(moments):
  found = metrics.gaussian_threshold(**moments)
  low, high = sorted((moments["genuine_mean"], moments["impostor_mean"]))
  assert low < found < high
  assert math.isclose(metrics.gaussian_threshold(**_swapped(moments)), found)
  for scale, shift in ((1e-8, 0.0), (1e8, 0.0), (3.0, -40.0)):
    moved = {
      name: scale * value + (shift if name.endswith("mean") else 0.0)
      for name, value in moments.items()
    }
    expected = scale * found + shift
    assert math.isclose(metrics.gaussian_threshold(**moved), expected)


@pytest.mark.parametrize(
  "moments",
  [
    _normals(0.0, 1.0, 0.5, 9.0),
    _normals(0.5, 9.0, 0.0, 1.0),
    _normals(2.0, 1.0, 2.0, 1.0),
    _normals(2.0, 1.0, 2.0, 3.0),
  ],
)
def test_no_crossing_between_the_means_is_refused(moments):
  with pytest.raises(ValueError, match="do not cross between their means"):
    metrics.gaussian_threshold(**moments)


@pytest.mark.parametrize("wide", ["genuine", "impostor"])
def test_where_a_crossing_begins(wide):
  """At the mean of the narrow kind, d^2 = 2 ln 2 deviations of the narrow."""
  least = math.sqrt(2 * math.log(2))
  for gap, crosses in ((0.999 * least, False), (1.001 * least, True)):
    moments = _normals(0.0, 1.0, gap, 2.0)
    if wide == "genuine":
      moments = _swapped(moments)
    if crosses:
      assert 0 < metrics.gaussian_threshold(**moments) < gap
    else:
      with pytest.raises(ValueError, match="do not cross"):
        metrics.gaussian_threshold(**moments)


@pytest.mark.parametrize("name", sorted(_DOCUMENT))
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_moments_are_refused_by_name(name, value):
  with pytest.raises(ValueError, match=f"{name} must be"):
    metrics.gaussian_threshold(**(_DOCUMENT | {name: value}))
  if name.endswith("sd"):
    for none in (0.0, -1.0):
      with pytest.raises(ValueError, match=f"{name} must be positive, got"):
        metrics.gaussian_threshold(**(_DOCUMENT | {name: none}))


def test_fit_finds_the_moments_of_large_samples():
  rng = np.random.default_rng(0)
  same = np.arange(60000) % 2
  distances = np.where(
    same == 1,
    2.592 + 0.979 * rng.normal(size=same.size),
    4.779 + 1.726 * rng.normal(size=same.size),
  )
  fit = metrics.fit_gaussian_threshold(distances, same)
  assert abs(fit.threshold - 3.7789) < 0.03
  for name, value in _DOCUMENT.items():
    assert abs(getattr(fit, name) - value) < 0.03
  below = metrics.distance_statistics(distances, same, below=[fit.threshold])
  # What the document's own model says of its threshold.
  assert abs(1 - below.genuine.below[0] - 0.113) < 0.006
  assert abs(below.impostor.below[0] - 0.281) < 0.006


def test_a_kind_without_spread_is_refused():
  with pytest.raises(ValueError, match="genuine_sd must be positive, got 0"):
    metrics.fit_gaussian_threshold([1.0, 1.0, 2.0, 3.0], [1, 1, 0, 0])
  with pytest.raises(ValueError, match="scores must be finite"):
    metrics.fit_gaussian_threshold([1.0, math.nan], [1, 0])


def _people(num_people, images=1, seed=0, lookalikes=0):
  """All pairs; the highest impostor scores are of pairs of two look-alikes."""
  ids = np.append(np.repeat(np.arange(num_people), images), 0)
  i, j = np.triu_indices(ids.size, 1)
  a, b = ids[i], ids[j]
  scores = np.random.default_rng(seed).permutation(i.size) / i.size
  scores += 1.0 * (a == b)
  same_two = (np.minimum(a, b) == 1) & (np.maximum(a, b) == 2)
  scores[np.flatnonzero(same_two)[:lookalikes]] += 5.0
  return scores, a, b


def _smallest(error):
  return float(re.search(r"with enough is ([0-9.e-]+)", str(error)).group(1))


def test_a_supported_target_gives_the_usual_threshold():
  scores, a, b = _people(40, images=2)
  found = metrics.supported_threshold_at_fmr(scores, a, b, 0.05)
  assert found.threshold == metrics.threshold_at_fmr(scores, a == b, 0.05)
  assert 0 < found.fmr <= 0.05
  assert found.people == 40
  assert found.false_matches >= found.person_pairs >= 30
  names = np.array([f"person {n}" for n in range(40)])
  assert found == metrics.supported_threshold_at_fmr(
    scores, names[b], names[a], 0.05
  )


def test_too_few_expected_errors():
  scores, a, b = _people(40)
  num = (a != b).sum()
  with pytest.raises(ValueError, match="expected errors") as caught:
    metrics.supported_threshold_at_fmr(scores, a, b, 29 / num)
  assert "29 expected errors" in str(caught.value)
  assert "40 people" not in str(caught.value)
  smallest = _smallest(caught.value)
  assert math.isclose(smallest, 30 / num, rel_tol=1e-5)
  # The number of errors, exactly 30, is enough.
  assert (
    metrics.supported_threshold_at_fmr(scores, a, b, 30 / num).false_matches
    == 30
  )


def test_errors_of_one_pair_of_lookalikes_do_not_count():
  # Each person has seven images, so the two have 49 pairs.
  scores, a, b = _people(36, images=7, lookalikes=49)
  num = (a != b).sum()
  with pytest.raises(ValueError, match="errors from") as caught:
    metrics.supported_threshold_at_fmr(scores, a, b, 40 / num)
  assert "errors from 1 pairs of people" in str(caught.value)
  assert "expected errors," not in str(caught.value)
  smallest = _smallest(caught.value)
  assert smallest > 78 / num
  found = metrics.supported_threshold_at_fmr(scores, a, b, 1.0001 * smallest)
  assert found.person_pairs == 30
  with pytest.raises(ValueError, match="errors from 29 pairs of people"):
    metrics.supported_threshold_at_fmr(scores, a, b, 0.9999 * smallest)


def test_too_few_people_support_nothing():
  scores, a, b = _people(29, images=6)
  with pytest.raises(ValueError, match="29 people; needed") as caught:
    metrics.supported_threshold_at_fmr(scores, a, b, 0.3)
  assert "no target has enough in these pairs" in str(caught.value)
  assert metrics.supported_threshold_at_fmr(*_people(30, images=6), 0.3)


def test_exactly_thirty_pairs_of_exactly_thirty_people_are_enough():
  # A ring: each person meets the next one, and themselves.
  ids = np.arange(30)
  a, b = np.append(ids, ids), np.append((ids + 1) % 30, ids)
  scores = np.append(np.linspace(0, 1, 30), np.full(30, 2.0))
  with pytest.raises(ValueError) as caught:
    metrics.supported_threshold_at_fmr(scores, a, b, 0.5)
  assert _smallest(caught.value) == 1.0
  found = metrics.supported_threshold_at_fmr(scores, a, b, 1.0)
  assert found == (0.0, 1.0, 30, 30, 30)


def test_all_three_are_named_at_once():
  scores, a, b = _people(5)
  with pytest.raises(ValueError) as caught:
    metrics.supported_threshold_at_fmr(scores, a, b, 0.1)
  for part in ("expected errors", "errors from 1 pairs", "5 people;"):
    assert part in str(caught.value)


def test_tied_impostors_support_only_everything():
  scores, a, b = _people(40)
  tied = np.where(a == b, 1.0, 0.5)
  with pytest.raises(ValueError, match="errors from 0 pairs") as caught:
    metrics.supported_threshold_at_fmr(tied, a, b, 0.99)
  assert _smallest(caught.value) == 1.0
  assert metrics.supported_threshold_at_fmr(tied, a, b, 1.0).fmr == 1.0


def test_bad_pairs_and_targets_are_refused_by_name():
  scores, a, b = _people(40)
  check = metrics.supported_threshold_at_fmr
  for target in (-0.1, 1.1, math.nan):
    with pytest.raises(ValueError, match="target must lie in 0..1"):
      check(scores, a, b, target)
  with pytest.raises(ValueError, match="people_a and people_b must have the"):
    check(scores, a[:-1], b, 0.1)
  with pytest.raises(ValueError, match="scores must be finite"):
    check(scores * math.nan, a, b, 0.1)
  with pytest.raises(ValueError, match="same must hold at least one"):
    check(scores, a, a, 0.1)
  with pytest.raises(ValueError, match="people_b must be integers or strings"):
    check(scores, a, b.astype(float), 0.1)


def test_the_three_limits_are_what_the_text_says():
  assert thresholds.MIN_ERRORS == 30
  assert thresholds.MIN_PERSON_PAIRS == 30
  assert thresholds.MIN_PEOPLE == 30


def test_the_smallest_target_of_many_pairs_of_people():
  i, j = np.triu_indices(60)
  scores = np.random.default_rng(0).normal(size=i.size)
  # One pair for each two of sixty people: the 30th highest of 1770.
  with pytest.raises(ValueError, match=f"with enough is {30 / 1770:.6g}$"):
    metrics.supported_threshold_at_fmr(scores, i, j, 0.001)
