"""Tests of facesiam_jax.metrics.verification."""

import doctest
import math

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from facesiam_jax.metrics import tally, verification
from tests.reference import metrics as reference


def _random_case(seed, ties):
  rng = np.random.default_rng(seed)
  same = np.concatenate([np.ones(13), np.zeros(29)]).astype(np.int32)
  scores = rng.normal(size=42) + 1.3 * same
  if ties:
    scores = np.round(scores * 2) / 2
  order = rng.permutation(42)
  return scores[order], same[order]


CASES = [_random_case(seed, seed % 2 == 0) for seed in range(8)]
# Wrong sign, perfect separation, all equal, two pairs, one genuine pair.
CASES += [
  (-CASES[0][0], CASES[0][1]),
  (np.array([3.0, 2.5, 1.0, 0.5, 0.0]), np.array([1, 1, 0, 0, 0])),
  (np.array([0.5, 0.5, 0.5]), np.array([1, 0, 0])),
  (np.array([1.0, 0.0]), np.array([1, 0])),
  (np.array([0.0, 1.0]), np.array([1, 0])),
  (np.array([0.3, 0.9, 0.1, 0.3]), np.array([1, 0, 0, 0])),
]


def test_docstring_examples():
  for module in (verification, tally):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


@pytest.mark.parametrize("scores, same", CASES)
def test_equals_loop_reference(scores, same):
  eer = verification.eer(scores, same)
  assert math.isclose(
    verification.auc(scores, same), reference.auc(scores, same), abs_tol=1e-12
  )
  assert math.isclose(eer.raw, reference.eer_raw(scores, same), abs_tol=1e-12)
  assert math.isclose(
    eer.rocch, reference.eer_rocch(scores, same), abs_tol=1e-12
  )
  points = np.array(reference.points(scores, same))
  det = verification.det_points(scores, same)
  roc = verification.roc(scores, same)
  np.testing.assert_array_equal(np.stack([det.fmr, det.fnmr], 1), points)
  np.testing.assert_allclose(roc.tar, 1 - points[:, 1], atol=1e-15)
  np.testing.assert_array_equal(roc.thresholds, det.thresholds)


@pytest.mark.parametrize("scores, same", CASES)
def test_rates_at_threshold_equal_loop_reference(scores, same):
  thresholds = [*scores, scores[0] + 1e-9, scores.mean(), -math.inf, math.inf]
  for threshold in thresholds:
    fmr, fnmr = reference.fmr_fnmr(scores, same, threshold)
    rates = verification.error_rates_at(scores, same, threshold)
    assert rates == (fmr, fnmr)
    accuracy = verification.accuracy_at(scores, same, threshold)
    right = np.mean((scores >= threshold) == (same == 1))
    assert math.isclose(accuracy.raw, right, abs_tol=1e-12)
    assert math.isclose(
      accuracy.balanced, (1 - fmr + 1 - fnmr) / 2, abs_tol=1e-12
    )


@pytest.mark.parametrize("scores, same", CASES)
@pytest.mark.parametrize("target", [0.0, 0.03, 0.1, 1 / 3, 0.5, 1.0])
def test_tar_at_far_equals_loop_reference(scores, same, target):
  tar, threshold = verification.tar_at_far(scores, same, target)
  expected_tar, expected_threshold = reference.tar_at_far(scores, same, target)
  assert math.isclose(tar, expected_tar, abs_tol=1e-12)
  if expected_threshold is None:
    assert threshold == np.nextafter(scores.max(), math.inf)
  else:
    assert threshold == expected_threshold
  assert verification.threshold_at_fmr(scores, same, target) == threshold
  # The threshold does what it says, and no lower score would.
  fmr, fnmr = reference.fmr_fnmr(scores, same, threshold)
  assert fmr <= target
  assert math.isclose(1 - fnmr, tar, abs_tol=1e-12)
  for lower in scores[scores < threshold]:
    assert reference.fmr_fnmr(scores, same, lower)[0] > target


@pytest.mark.parametrize("scores, same", CASES)
def test_eer_threshold_balances_best(scores, same):
  threshold = verification.threshold_at_eer(scores, same)
  fmr, fnmr = reference.fmr_fnmr(scores, same, threshold)
  gaps = [abs(a - b) for a, b in reference.points(scores, same)]
  assert math.isclose(abs(fmr - fnmr), min(gaps), abs_tol=1e-12)


def test_agrees_with_scikit_learn():
  scores, same = CASES[3]
  roc = verification.roc(scores, same)
  fpr, tpr, thresholds = sklearn_metrics.roc_curve(
    same, scores, drop_intermediate=False
  )
  np.testing.assert_allclose(roc.fmr, fpr, atol=1e-15)
  np.testing.assert_allclose(roc.tar, tpr, atol=1e-15)
  np.testing.assert_array_equal(roc.thresholds, thresholds)
  expected = sklearn_metrics.roc_auc_score(same, scores)
  assert math.isclose(verification.auc(scores, same), expected, abs_tol=1e-12)


def test_known_values():
  separated = verification.eer([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0])
  assert separated == (0.0, 0.0, 0.5)
  inverted = verification.eer([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0])
  assert (inverted.rocch, inverted.raw) == (0.5, 1.0)
  equal = verification.eer([0.5, 0.5, 0.5], [1, 0, 0])
  assert (equal.rocch, equal.raw) == (0.5, 0.5)
  assert verification.auc([0.5, 0.5, 0.5], [1, 0, 0]) == 0.5


@pytest.mark.parametrize("scores, same", CASES)
def test_invariant_to_order_and_to_monotone_maps(scores, same):
  eer = verification.eer(scores, same)
  auc = verification.auc(scores, same)
  tar = verification.tar_at_far(scores, same, 0.1)
  order = np.random.default_rng(1).permutation(scores.size)
  shuffled = scores[order], same[order]
  assert verification.eer(*shuffled) == eer
  assert verification.auc(*shuffled) == auc
  assert verification.tar_at_far(*shuffled, 0.1) == tar
  mapped = np.exp(3 * scores) - 5
  assert verification.eer(mapped, same)[:2] == eer[:2]
  assert verification.auc(mapped, same) == auc
  assert verification.tar_at_far(mapped, same, 0.1).tar == tar.tar


@pytest.mark.parametrize("scores, same", CASES)
def test_swapping_sign_and_labels(scores, same):
  flipped = verification.auc(-scores, same)
  assert math.isclose(flipped, 1 - verification.auc(scores, same))
  eer = verification.eer(scores, same)
  mirrored = verification.eer(-scores, 1 - same)
  assert math.isclose(mirrored.rocch, eer.rocch, abs_tol=1e-12)
  assert math.isclose(mirrored.raw, eer.raw, abs_tol=1e-12)
  assert eer.rocch <= eer.raw + 1e-12


def _strictly_above(scores, same, threshold):
  return verification.error_rates_at(
    scores, same, np.nextafter(threshold, np.inf)
  )


def _swapped_labels(scores, same, threshold):
  return verification.error_rates_at(scores, 1 - np.asarray(same), threshold)


def _distance_sign(scores, same, threshold):
  return verification.error_rates_at(-np.asarray(scores), same, -threshold)


def _swapped_rates(scores, same, threshold):
  return verification.error_rates_at(scores, same, threshold)[::-1]


def _share_of_all_pairs(scores, same, threshold):
  rates = verification.error_rates_at(scores, same, threshold)
  same = np.asarray(same)
  return rates.fmr * np.mean(same == 0), rates.fnmr * np.mean(same)


@pytest.mark.parametrize(
  "wrong",
  [
    _strictly_above,
    _swapped_labels,
    _distance_sign,
    _swapped_rates,
    _share_of_all_pairs,
  ],
)
def test_wrong_error_rates_are_rejected(wrong):
  scores, same = CASES[0]
  differ = [
    wrong(scores, same, t) != reference.fmr_fnmr(scores, same, t)
    for t in scores
  ]
  assert any(differ)


def _auc_strict(scores, same):
  genuine, impostor = scores[same == 1], scores[same == 0]
  return np.mean(genuine[:, None] > impostor[None])


def _auc_generous(scores, same):
  genuine, impostor = scores[same == 1], scores[same == 0]
  return np.mean(genuine[:, None] >= impostor[None])


def _auc_ordinal_ranks(scores, same):
  ranks = np.empty(scores.size)
  ranks[np.argsort(scores, kind="stable")] = np.arange(1, scores.size + 1)
  num = same.sum()
  won = ranks[same == 1].sum() - num * (num + 1) / 2
  return won / (num * (same.size - num))


@pytest.mark.parametrize(
  "wrong", [_auc_strict, _auc_generous, _auc_ordinal_ranks]
)
def test_wrong_auc_is_rejected(wrong):
  scores, same = CASES[0]
  assert abs(wrong(scores, same) - reference.auc(scores, same)) > 1e-6


def _tar_nearest(scores, same, target):
  det = verification.det_points(scores, same)
  return 1 - det.fnmr[np.argmin(np.abs(det.fmr - target))]


def _tar_interpolated(scores, same, target):
  roc = verification.roc(scores, same)
  return np.interp(target, roc.fmr, roc.tar)


@pytest.mark.parametrize("wrong", [_tar_nearest, _tar_interpolated])
def test_wrong_tar_at_far_is_rejected(wrong):
  scores, same = CASES[0]
  targets = np.linspace(0, 0.5, 23)
  expected = [reference.tar_at_far(scores, same, t)[0] for t in targets]
  got = [wrong(scores, same, t) for t in targets]
  assert np.abs(np.subtract(got, expected)).max() > 1e-3


def test_eer_raw_and_rocch_differ():
  # Else neither reference could tell the two apart.
  differ = [
    verification.eer(*c).raw - verification.eer(*c).rocch for c in CASES
  ]
  assert max(differ) > 0.01


def test_thresholds_survive_storing_in_the_type_of_the_scores():
  top = np.float32(0.7)
  scores = np.array([0.1, top, np.nextafter(top, np.float32(0))], np.float32)
  same = [1, 0, 0]
  threshold = verification.threshold_at_fmr(scores, same, 0.0)
  assert np.float32(threshold) == threshold > top
  # Neighbouring float32 scores have nothing between them.
  pair = np.array([top, np.nextafter(top, np.float32(0))], np.float32)
  threshold = verification.threshold_at_eer(pair, [1, 0])
  assert verification.error_rates_at(pair, [1, 0], threshold) == (0, 0)


def test_huge_scores_do_not_overflow():
  scores = np.array([1.7e308, 1.6e308, -1.7e308])
  assert verification.eer(scores, [1, 1, 0]).threshold == pytest.approx(
    -0.05e308, rel=1e-6
  )


@pytest.mark.parametrize("kind", [np.bool_, np.int8, np.float32])
def test_label_types(kind):
  scores, same = CASES[1]
  assert verification.eer(scores, same.astype(kind)) == verification.eer(
    scores, same
  )


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
    verification.roc,
    verification.det_points,
    verification.auc,
    verification.eer,
    verification.threshold_at_eer,
    lambda scores, same: verification.error_rates_at(scores, same, 0.1),
    lambda scores, same: verification.accuracy_at(scores, same, 0.1),
    lambda scores, same: verification.tar_at_far(scores, same, 0.1),
  ],
)
def test_bad_input_is_refused_by_name(function, scores, same, message):
  with pytest.raises(ValueError, match=message):
    function(scores, same)


def test_bad_thresholds_and_targets_are_refused_by_name():
  scores, same = CASES[0]
  with pytest.raises(ValueError, match="threshold must be a number"):
    verification.error_rates_at(scores, same, math.nan)
  for target in (-0.1, 1.1, math.nan):
    with pytest.raises(ValueError, match="target must lie in 0..1"):
      verification.tar_at_far(scores, same, target)
