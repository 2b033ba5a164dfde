"""Tests of facesiam_jax.metrics.platt and kernel."""

import math

import numpy as np
import pytest
from reference import metric_cases
from scipy import stats

from facesiam_jax import metrics
from facesiam_jax.metrics import kernel, platt, tally


def test_bins_change_little(monkeypatch):
  case = metric_cases.people(num_people=40, images=4, seed=2)
  fine = metrics.platt_jackknife(*case)
  assert fine.reason is None and fine.people == 40
  monkeypatch.setattr(platt, "_BINS", 10**6)
  exact = metrics.platt_jackknife(*case)
  np.testing.assert_allclose(fine[1:4], exact[1:4], rtol=0.02)
  # The logit is known best where most scores of both kinds are.
  widths = np.subtract(*fine.ends([-20.0, 0.7, 20.0])[::-1])
  assert widths[1] < 0.2 * min(widths[0], widths[2])


def test_scores_of_another_unit_give_the_same_logits():
  scores, a, b = metric_cases.people(num_people=31, images=3, seed=3)
  one = metrics.platt_jackknife(scores, a, b)
  other = metrics.platt_jackknife(0.01 * scores + 5, a, b)
  np.testing.assert_allclose(
    one.ends([0.0, 2.0]), other.ends([5.0, 5.02]), rtol=1e-6
  )


def test_no_interval_is_told_why():
  scores, a, b = metric_cases.people(num_people=31, images=3, seed=3)
  found = metrics.platt_jackknife(scores, a, b, min_people=32)
  assert found.reason == (
    "an interval needs at least 32 people, the genuine pairs have 31"
  )
  assert np.isnan(found.ends([0.0])).all() and found.platt.w > 0
  # One person has all genuine pairs.
  own = (a != b) | (a == a[0])
  found = metrics.platt_jackknife(scores[own], a[own], b[own], min_people=1)
  assert "without one of the people" in found.reason
  for bad in ({"level": 95}, {"level": math.nan}):
    with pytest.raises(ValueError, match="level must lie inside 0..1"):
      metrics.platt_jackknife(scores, a, b, **bad)
  with pytest.raises(ValueError, match="scores must be finite"):
    metrics.platt_jackknife(scores * math.nan, a, b)


def test_normal_scores_cross_where_normal_fits_do():
  grid = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
  scores = np.append(2.0 + 0.5 * grid, grid)
  same = np.repeat([1, 0], grid.size)
  found = metrics.fit_kernel_threshold(scores, same).threshold
  expected = metrics.fit_gaussian_threshold(scores, same).threshold
  # The kernels widen both densities a little.
  assert abs(found - expected) < 0.02
  counts = tally.tally(np.append(scores, scores), np.append(same, same))
  again = kernel.kernel_fit_of(counts)
  assert abs(again.threshold - expected) < 0.02
  # Twice as many pairs, narrower kernels.
  width = metrics.fit_kernel_threshold(scores, same).genuine_width
  assert math.isclose(again.genuine_width, width * 2**-0.2)


def test_a_far_gap_has_its_middle():
  scores = [1000.0, 1001.0, 1002.0, 0.0, 1.0, 2.0]
  found = metrics.fit_kernel_threshold(scores, [1, 1, 1, 0, 0, 0])
  assert abs(found.threshold - 501) < 1


def test_half_of_the_scores_equal_have_a_width():
  """The quartiles say nothing, the standard deviation does."""
  scores = [5.0, 5.0, 5.0, 5.0, 9.0, 0.0, 1.0]
  fit = metrics.fit_kernel_threshold(scores, [1, 1, 1, 1, 1, 0, 0])
  assert math.isclose(fit.genuine_width, 0.9 * 1.6 * 5**-0.2)


@pytest.mark.parametrize(
  "scores, match",
  [
    ([1.0, 1.0, 0.0, 0.5], "genuine scores must differ"),
    ([1.0, 2.0, 0.5, 0.5], "impostor scores must differ"),
    ([0.0, 1.0, 2.0, 3.0], "must be higher than impostor"),
    ([0.0, math.nan, 2.0, 3.0], "scores must be finite"),
  ],
)
def test_bad_scores_are_refused_by_name(scores, match):
  with pytest.raises(ValueError, match=match):
    metrics.fit_kernel_threshold(scores, [1, 1, 0, 0])
