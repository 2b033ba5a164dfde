"""Tests of facesiam_jax.metrics.fairness."""

import math

import numpy as np
import pytest

from facesiam_jax import metrics

_MEASURES = [metrics.max_ratio, metrics.geometric_mean_ratio, metrics.gini]
_BOTH = [metrics.fairness_discrepancy_rate, metrics.garbe]


def _case(seed=0, num=400):
  rng = np.random.default_rng(seed)
  same = (rng.random(num) < 0.4).astype(int)
  a = rng.integers(0, 3, num)
  b = np.where(same == 1, a, rng.integers(0, 3, num))
  # People of group 2 are alike to the network.
  scores = rng.normal(size=num) + 2.0 * same + 0.8 * ((a == 2) & (b == 2))
  return scores, same, a, b


def test_rates_sum_to_those_of_all_pairs():
  scores, same, a, b = _case()
  found = metrics.group_error_rates(scores, same, a, b, 1.0)
  total = metrics.error_rates_at(scores, same, 1.0)
  upper = np.triu_indices(3)
  pairs = found.impostor[upper]
  assert pairs.sum() == (same == 0).sum()
  assert found.genuine.sum() == same.sum()
  assert math.isclose((found.fmr[upper] * pairs).sum() / pairs.sum(), total.fmr)
  assert math.isclose(
    (found.fnmr * found.genuine).sum() / found.genuine.sum(), total.fnmr
  )
  np.testing.assert_array_equal(found.fmr, found.fmr.T)
  np.testing.assert_array_equal(found.fmr_within, np.diagonal(found.fmr))


def test_impostors_within_the_group_are_the_harder_ones():
  found = metrics.group_error_rates(*_case(), 1.0)
  assert found.fmr_within[2] > 1.5 * found.fmr_across[2]
  assert found.fmr_within[2] > 1.5 * found.fmr_within[:2].max()


def test_order_and_ends_of_pairs_do_not_matter():
  scores, same, a, b = _case()
  base = metrics.group_error_rates(scores, same, a, b, 1.0)
  order = np.random.default_rng(0).permutation(scores.size)
  names = np.array(["east", "north", "west"])
  again = metrics.group_error_rates(
    scores[order], same[order], names[b[order]], names[a[order]], 1.0
  )
  assert again.groups.tolist() == names.tolist()
  for one, other in zip(base[1:], again[1:], strict=True):
    np.testing.assert_array_equal(one, other)


def test_a_rate_of_no_pairs_is_not_a_number_and_is_refused():
  found = metrics.group_error_rates(
    [0.9, 0.1, 0.8], [1, 0, 0], ["f", "f", "f"], ["f", "m", "f"], 0.5
  )
  assert found.fnmr[0] == 0.0 and math.isnan(found.fnmr[1])
  assert math.isnan(found.fmr[1, 1]) and found.fmr[0, 1] == 0.0
  assert found.fmr_across.tolist() == [0.0, 0.0]
  for measure in _MEASURES:
    with pytest.raises(ValueError, match="rates must be finite, got NaN"):
      measure(found.fnmr)
  for measure in _BOTH:
    with pytest.raises(ValueError, match="fnmr must be finite"):
      measure([0.1, 0.2], found.fnmr)


def test_a_single_group_has_rates_but_no_measure():
  found = metrics.group_error_rates([0.9, 0.1], [1, 0], [7, 7], [7, 7], 0.5)
  assert found.fmr.shape == (1, 1)
  assert math.isnan(found.fmr_across[0])
  for measure in _MEASURES:
    with pytest.raises(ValueError, match="at least 2 groups, got 1"):
      measure(found.fnmr)


def test_a_genuine_pair_of_two_groups_is_refused():
  with pytest.raises(ValueError, match="1 of them have two groups"):
    metrics.group_error_rates([0.9, 0.1], [1, 0], [7, 7], [8, 7], 0.5)


@pytest.mark.parametrize("measure", _MEASURES)
def test_measures_of_rates(measure):
  equal = measure([0.02, 0.02, 0.02])
  assert equal == measure([0.3, 0.3]) == measure([0.0, 0.0])
  assert equal == (0.0 if measure is metrics.gini else 1.0)
  rates = np.array([0.01, 0.2, 0.05])
  found = measure(rates)
  assert found > equal
  # Only how they compare matters: not the order, not the level.
  assert math.isclose(measure(rates[[2, 0, 1]]), found)
  assert math.isclose(measure(rates / 1000), found)


def test_a_group_without_errors():
  rates = [0.0, 0.1, 0.1]
  assert metrics.max_ratio(rates) == math.inf
  assert metrics.geometric_mean_ratio(rates) == math.inf
  assert math.isclose(metrics.gini(rates), 0.5)


def test_rates_of_0_and_1_are_rates():
  assert metrics.max_ratio([1.0, 0.5]) == 2.0
  assert metrics.fairness_discrepancy_rate([0.0, 1.0], [0.0, 1.0]) == 0.0
  assert math.isclose(metrics.garbe([0.0, 1.0], [1.0, 1.0]), 0.5)


def test_the_ratio_to_the_geometric_mean_is_the_milder():
  rates = [0.001, 0.02, 0.03, 0.02]
  assert 1 < metrics.geometric_mean_ratio(rates) < metrics.max_ratio(rates)


@pytest.mark.parametrize("measure", _BOTH)
def test_measures_of_both_rates(measure):
  fair = 0.0 if measure is metrics.garbe else 1.0
  assert math.isclose(measure([0.1, 0.1], [0.3, 0.3]), fair)
  fmr, fnmr = [0.1, 0.4], [0.2, 0.3]
  # The weight chooses between the two rates.
  assert math.isclose(measure(fmr, [0.2, 0.2], alpha=0.0), fair)
  assert math.isclose(measure([0.1, 0.1], fnmr, alpha=1.0), fair)
  assert math.isclose(
    measure(fmr, fnmr, alpha=0.3), measure(fnmr, fmr, alpha=0.7)
  )
  assert 0 < measure(fmr, fnmr) < 1


def test_only_the_gini_rate_sees_differences_of_low_rates():
  fmr, fnmr = [1e-6, 1e-4, 1e-6], [0.05, 0.05, 0.05]
  assert metrics.fairness_discrepancy_rate(fmr, fnmr) > 0.9999
  assert metrics.garbe(fmr, fnmr) > 0.4
  assert math.isclose(metrics.max_ratio(fmr), 100)


def test_all_errors_in_one_group_is_the_worst():
  for num in (2, 3, 10):
    rates = np.zeros(num)
    rates[-1] = 0.01
    assert math.isclose(metrics.gini(rates), 1.0)


@pytest.mark.parametrize(
  "rates, message",
  [
    ([], "must not be empty"),
    ([[0.1, 0.2]], "must have rank 1"),
    ([0.1, 1.2], "must lie in 0..1, got 0.1..1.2"),
    ([-0.1, 0.2], "must lie in 0..1"),
    ([0.1, math.nan], "must be finite"),
    ([0.1], "must be of at least 2 groups"),
  ],
)
def test_bad_rates_are_refused_by_name(rates, message):
  for measure in _MEASURES:
    with pytest.raises(ValueError, match=f"rates {message}"):
      measure(rates)
  for measure in _BOTH:
    with pytest.raises(ValueError, match=f"fmr {message}"):
      measure(rates, [0.1, 0.2])
    with pytest.raises(ValueError, match=f"fnmr {message}"):
      measure([0.1, 0.2], rates)


def test_bad_pairs_and_weights_are_refused_by_name():
  for measure in _BOTH:
    with pytest.raises(ValueError, match="fmr and fnmr must have one shape"):
      measure([0.1, 0.2], [0.1, 0.2, 0.3])
    for alpha in (-0.1, 1.1, math.nan):
      with pytest.raises(ValueError, match="alpha must lie in 0..1"):
        measure([0.1, 0.2], [0.1, 0.2], alpha=alpha)
  scores, same, a, b = _case()
  check = metrics.group_error_rates
  with pytest.raises(ValueError, match="groups_a and groups_b must have the"):
    check(scores, same, a[:-1], b, 1.0)
  with pytest.raises(ValueError, match="groups_b must be integers or strings"):
    check(scores, same, a, b.astype(float), 1.0)
  with pytest.raises(ValueError, match="threshold must be a number"):
    check(scores, same, a, b, math.nan)
  with pytest.raises(ValueError, match="scores must be finite"):
    check(scores * math.inf, same, a, b, 1.0)
