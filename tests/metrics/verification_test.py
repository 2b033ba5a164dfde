"""Tests of facesiam_jax.metrics.verification and tally."""

import math

import numpy as np
import pytest
from reference import metric_cases
from reference import metrics as reference
from sklearn import metrics as sklearn_metrics

from facesiam_jax import metrics
from facesiam_jax.metrics import tally

CASES = metric_cases.PAIRS


@pytest.mark.parametrize("scores, same", CASES)
@pytest.mark.parametrize("target", [0.0, 0.1, 0.5, 1.0])
def test_the_threshold_keeps_the_target_and_no_lower_one_would(
  scores, same, target
):
  threshold = metrics.threshold_at_fmr(scores, same, target)
  assert metrics.tar_at_far(scores, same, target).threshold == threshold
  assert reference.fmr_fnmr(scores, same, threshold)[0] <= target
  for lower in scores[scores < threshold]:
    assert reference.fmr_fnmr(scores, same, lower)[0] > target


def test_agrees_with_scikit_learn():
  scores, same = CASES[3]
  roc = metrics.roc(scores, same)
  fpr, tpr, thresholds = sklearn_metrics.roc_curve(
    same, scores, drop_intermediate=False
  )
  np.testing.assert_allclose(roc.fmr, fpr, atol=1e-15)
  np.testing.assert_allclose(roc.tar, tpr, atol=1e-15)
  np.testing.assert_array_equal(roc.thresholds, thresholds)
  expected = sklearn_metrics.roc_auc_score(same, scores)
  assert math.isclose(metrics.auc(scores, same), expected, abs_tol=1e-12)


def test_known_values():
  separated = metrics.eer([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
  assert separated == (0.0, 0.0, 0.5)
  inverted = metrics.eer([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0])
  assert (inverted.rocch, inverted.raw) == (0.5, 1.0)
  equal = metrics.eer([0.5, 0.5, 0.5], [1, 0, 0])
  assert (equal.rocch, equal.raw) == (0.5, 0.5)
  # Nothing and everything are equally far from balance: fewer false matches.
  assert equal.threshold == np.nextafter(0.5, 1)
  assert metrics.auc([0.5, 0.5, 0.5], [1, 0, 0]) == 0.5


@pytest.mark.parametrize("scores, same", CASES)
def test_invariant_to_order_and_to_monotone_maps(scores, same):
  eer = metrics.eer(scores, same)
  auc = metrics.auc(scores, same)
  tar = metrics.tar_at_far(scores, same, 0.1)
  order = np.random.default_rng(1).permutation(scores.size)
  shuffled = scores[order], same[order]
  assert metrics.eer(*shuffled) == eer
  assert metrics.auc(*shuffled) == auc
  assert metrics.tar_at_far(*shuffled, 0.1) == tar
  mapped = np.exp(3 * scores) - 5
  assert metrics.eer(mapped, same)[:2] == eer[:2]
  assert metrics.auc(mapped, same) == auc
  assert metrics.tar_at_far(mapped, same, 0.1).tar == tar.tar


@pytest.mark.parametrize("scores, same", CASES)
def test_swapping_sign_and_labels(scores, same):
  flipped = metrics.auc(-scores, same)
  assert math.isclose(flipped, 1 - metrics.auc(scores, same))
  eer = metrics.eer(scores, same)
  mirrored = metrics.eer(-scores, 1 - same)
  assert math.isclose(mirrored.rocch, eer.rocch, abs_tol=1e-12)
  assert math.isclose(mirrored.raw, eer.raw, abs_tol=1e-12)
  assert eer.rocch <= eer.raw + 1e-12


def test_eer_raw_and_rocch_differ():
  # Else neither reference could tell the two apart.
  differ = [metrics.eer(*c).raw - metrics.eer(*c).rocch for c in CASES]
  assert max(differ) > 0.01


def test_thresholds_survive_storing_in_the_type_of_the_scores():
  top = np.float32(0.7)
  scores = np.array([0.1, top, np.nextafter(top, np.float32(0))], np.float32)
  same = [1, 0, 0]
  threshold = metrics.threshold_at_fmr(scores, same, 0.0)
  assert np.float32(threshold) == threshold > top
  # Neighbouring float32 scores have nothing between them.
  pair = np.array([top, np.nextafter(top, np.float32(0))], np.float32)
  threshold = metrics.threshold_at_eer(pair, [1, 0])
  assert metrics.error_rates_at(pair, [1, 0], threshold) == (0, 0)


def test_nothing_is_above_the_largest_number():
  """The threshold above all scores is then infinity, without a warning."""
  top = np.finfo(np.float64).max
  assert metrics.tar_at_far([-1.0, top], [1, 0], 0.0) == (0, math.inf)


def test_huge_scores_do_not_overflow():
  scores = np.array([1.7e308, 1.6e308, -1.7e308])
  assert metrics.eer(scores, [1, 1, 0]).threshold == pytest.approx(
    -0.05e308, rel=1e-6
  )


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.float32])
def test_label_types(kind):
  scores, same = CASES[1]
  assert metrics.eer(scores, same.astype(kind)) == metrics.eer(scores, same)


BAD = [
  ([0.1, math.nan], [0, 1], "scores must be finite"),
  ([0.1, math.inf], [0, 1], "scores must be finite"),
  ([], [], "same must hold"),
  ([0.1, 0.2], [1, 1], "same must hold at least one"),
  ([0.1, 0.2], [0, 0], "same must hold at least one"),
  ([0.1, 0.2], [0, 2], "same must hold only 0 and 1"),
  ([0.1, 0.2], [-1, 1], "same must hold only 0 and 1"),
  ([0.1, 0.2], [0, 1, 1], "same must have the shape"),
  ([[0.1], [0.2]], [[0], [1]], "scores must have rank 1"),
  ([0.1, 0.2], [[0, 1]], "same must have the shape"),
  (0.1, 1, "scores must have rank 1"),
]


@pytest.mark.parametrize("scores, same, message", BAD)
@pytest.mark.parametrize(
  "function",
  [
    metrics.roc,
    metrics.det_points,
    metrics.auc,
    metrics.eer,
    metrics.threshold_at_eer,
    lambda scores, same: metrics.error_rates_at(scores, same, 0.1),
    lambda scores, same: metrics.accuracy_at(scores, same, 0.1),
    lambda scores, same: metrics.tar_at_far(scores, same, 0.1),
  ],
)
def test_bad_input_is_refused_by_name(function, scores, same, message):
  with pytest.raises(ValueError, match=message):
    function(scores, same)


def test_bad_thresholds_and_targets_are_refused_by_name():
  scores, same = CASES[0]
  with pytest.raises(ValueError, match="threshold must be a number"):
    metrics.error_rates_at(scores, same, math.nan)
  for target in (-0.1, 1.1, math.nan):
    with pytest.raises(ValueError, match="target must lie in 0..1"):
      metrics.tar_at_far(scores, same, target)


@pytest.mark.parametrize("scores, same", CASES)
def test_the_best_threshold_makes_the_fewest_errors(scores, same):
  counts = tally.tally(scores, same)
  threshold = tally.best_threshold_of(counts)
  assert threshold == reference.best_threshold(scores, same)
  right = tally.accuracy_of(counts, threshold).raw
  for other in [*scores, -math.inf, math.inf]:
    assert tally.accuracy_of(counts, other).raw <= right


@pytest.mark.parametrize("scores, same", CASES)
def test_a_tally_counts_each_pair_once(scores, same):
  counts = tally.tally(scores, same)
  assert (np.diff(counts.values) < 0).all()
  assert (counts.genuine + counts.impostor > 0).all()
  for value, genuine, impostor in zip(*counts, strict=True):
    assert genuine == ((scores == value) & (same == 1)).sum()
    assert impostor == ((scores == value) & (same == 0)).sum()


def test_zero_has_one_entry_whatever_its_sign():
  counts = tally.tally([0.0, -0.0, 1.0], [1, 0, 0])
  assert counts.genuine.tolist() == [0, 1]
  assert counts.impostor.tolist() == [1, 1]


def test_the_summary_holds_what_the_functions_say():
  scores, same = CASES[0]
  counts = tally.tally(scores, same)
  found = tally.summary_of(counts, 0.5, {"tar_at_far_0.1": 0.1})
  rates = metrics.error_rates_at(scores, same, 0.5)
  accuracy = metrics.accuracy_at(scores, same, 0.5)
  assert found == {
    "eer": metrics.eer(scores, same).rocch,
    "eer_raw": metrics.eer(scores, same).raw,
    "auc": metrics.auc(scores, same),
    "tar_at_far_0.1": metrics.tar_at_far(scores, same, 0.1).tar,
    "accuracy": accuracy.raw,
    "balanced_accuracy": accuracy.balanced,
    "fmr": rates.fmr,
    "fnmr": rates.fnmr,
  }
  assert set(tally.summary_of(counts, None, {})) == {"eer", "eer_raw", "auc"}
