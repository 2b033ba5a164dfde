"""Tests of facesiam_jax.metrics.accuracy."""

import math

import numpy as np
import pytest
from reference import metric_cases

from facesiam_jax import metrics


def _ten_folds(seed=0):
  """View 2 of LFW: ten folds of 300 genuine and 300 impostor pairs."""
  rng = np.random.default_rng(seed)
  same = np.tile(np.repeat([1, 0], 300), 10)
  scores = rng.normal(size=6000) + 3.0 * same
  return scores, same, np.repeat(np.arange(10), 600)


def test_ten_folds_of_labeled_faces():
  scores, same, folds = _ten_folds()
  found = metrics.k_fold_accuracy(scores, same, folds)
  # Two normals three deviations apart: 93.32 % are on the right side.
  assert abs(found.mean - 0.9332) < 0.01
  assert found.accuracies.shape == found.thresholds.shape == (10,)
  spread = np.std(found.accuracies, ddof=1)
  assert math.isclose(found.standard_error, spread / math.sqrt(10))
  assert np.abs(found.thresholds - 1.5).max() < 0.25
  # Chosen on the whole set, the threshold flatters.
  best = max(metrics.accuracy_at(scores, same, t).raw for t in found.thresholds)
  assert best >= found.mean


def test_the_standard_error_is_that_of_the_mean():
  # Over many such sets, means spread as the standard error says.
  found = [metrics.k_fold_accuracy(*_ten_folds(seed)) for seed in range(40)]
  spread = np.std([f.mean for f in found], ddof=1)
  typical = np.mean([f.standard_error for f in found])
  assert 0.7 < typical / spread < 1.4


def test_a_fold_never_sees_its_own_threshold():
  scores, same, folds = _ten_folds()
  base = metrics.k_fold_accuracy(scores, same, folds)
  changed = scores.copy()
  changed[folds == 3] = -100.0
  found = metrics.k_fold_accuracy(changed, same, folds)
  assert found.thresholds[3] == base.thresholds[3]
  assert found.accuracies[3] == 0.5


def test_invariant_to_order_names_and_monotone_maps():
  scores, same = metric_cases.PAIRS[0]
  folds = np.arange(scores.size) % 3
  base = metrics.k_fold_accuracy(scores, same, folds)
  order = np.random.default_rng(0).permutation(scores.size)
  again = metrics.k_fold_accuracy(scores[order], same[order], folds[order])
  np.testing.assert_array_equal(again.thresholds, base.thresholds)
  np.testing.assert_array_equal(again.accuracies, base.accuracies)
  named = np.array(["x", "y", "z"])[folds]
  mapped = metrics.k_fold_accuracy(5 * scores + 2, same, named)
  np.testing.assert_array_equal(mapped.accuracies, base.accuracies)


def test_float32_thresholds_separate_float32_scores():
  top = np.float32(0.7)
  low = np.nextafter(top, np.float32(0))
  scores = np.array([top, low, top, low], np.float32)
  found = metrics.k_fold_accuracy(scores, [1, 0, 1, 0], [0, 0, 1, 1])
  assert found.mean == 1.0


def test_people_in_two_folds_are_refused():
  scores, same = [0.9, 0.2, 0.7, 0.4], [1, 0, 1, 0]
  folds, first = [0, 0, 1, 1], [1, 1, 3, 3]
  found = metrics.k_fold_accuracy(
    scores, same, folds, people_a=first, people_b=[1, 2, 3, 4]
  )
  assert found.mean == 1.0
  with pytest.raises(
    ValueError, match="1 of 3 are in two folds or more, e.g. 2"
  ):
    metrics.k_fold_accuracy(
      scores, same, folds, people_a=first, people_b=[1, 2, 3, 2]
    )
  with pytest.raises(ValueError, match="must be given together"):
    metrics.k_fold_accuracy(scores, same, folds, people_a=first)


def test_folds_that_say_nothing_are_refused_by_name():
  scores, same = [0.9, 0.2, 0.7, 0.4], [1, 0, 1, 0]
  with pytest.raises(ValueError, match="folds must name at least 2 folds"):
    metrics.k_fold_accuracy(scores, same, [7, 7, 7, 7])
  with pytest.raises(ValueError, match="folds must have the shape of scores"):
    metrics.k_fold_accuracy(scores, same, [0, 1])
  with pytest.raises(ValueError, match="folds: the pairs outside of a fold"):
    metrics.k_fold_accuracy(scores, same, [0, 1, 0, 1])
  with pytest.raises(ValueError, match="folds must be integers or strings"):
    metrics.k_fold_accuracy(scores, same, [0.0, 0.0, 1.0, 1.0])
  with pytest.raises(ValueError, match="scores must be finite"):
    metrics.k_fold_accuracy([math.nan] * 4, same, [0, 0, 1, 1])


def test_a_fold_may_hold_one_kind():
  found = metrics.k_fold_accuracy(
    [0.9, 0.1, 0.8, 0.2, 0.3], [1, 0, 1, 0, 0], [0, 0, 1, 1, 2]
  )
  assert found.mean == 1.0


def test_triplets_of_a_collapsed_embedding_are_all_wrong():
  assert metrics.triplet_accuracy(np.zeros(5), np.zeros(5)) == 0.0
  assert metrics.triplet_accuracy([0.1], [0.2]) == 1.0


def test_triplet_accuracy_is_the_area_under_the_curve_of_independent_draws():
  rng = np.random.default_rng(0)
  positive = 2.592 + 0.979 * rng.normal(size=40000)
  negative = 4.779 + 1.726 * rng.normal(size=40000)
  # P(d+ < d-) of these two normals is 0.8648.
  found = metrics.triplet_accuracy(positive, negative)
  assert abs(found - 0.8648) < 0.006


@pytest.mark.parametrize(
  "positive, negative, message",
  [
    ([], [], "positive_distances must not be empty"),
    ([1.0], [1.0, 2.0], "must have one shape"),
    ([[1.0]], [[1.0]], "positive_distances must have rank 1"),
    ([1.0], [math.nan], "negative_distances must be finite"),
  ],
)
def test_bad_triplets_are_refused_by_name(positive, negative, message):
  with pytest.raises(ValueError, match=message):
    metrics.triplet_accuracy(positive, negative)


def test_distance_statistics_of_single_pairs():
  genuine, impostor = metrics.distance_statistics([1.0, 4.0], [1, 0])
  assert genuine == (1.0, 0.0, (), 1)
  assert impostor == (4.0, 0.0, (), 1)


def test_distance_statistics_sum_in_float64():
  # In float32 the mean of so many would be off in the third digit.
  distances = np.full(3_000_000, 0.1, np.float32)
  same = np.ones(distances.size, int)
  same[0] = 0
  found = metrics.distance_statistics(distances, same).genuine
  assert math.isclose(found.mean, np.float32(0.1), rel_tol=1e-12)
  assert found.sd < 1e-12


def test_bad_distances_are_refused_by_name():
  with pytest.raises(ValueError, match="distances must be finite"):
    metrics.distance_statistics([1.0, math.nan], [1, 0])
  with pytest.raises(ValueError, match="below must hold numbers"):
    metrics.distance_statistics([1.0, 2.0], [1, 0], below=[math.nan])
  with pytest.raises(ValueError, match="same must hold at least one"):
    metrics.distance_statistics([1.0, 2.0], [1, 1])
