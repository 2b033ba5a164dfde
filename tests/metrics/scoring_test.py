"""Tests of facesiam_jax.metrics.scoring."""

import math

import numpy as np
import pytest
from reference import metric_cases
from sklearn import metrics as sklearn_metrics

from facesiam_jax import metrics


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def test_forgetting_the_prior_odds_costs_as_much_as_was_found():
  """1,000 genuine and 100,000 impostor pairs, as in an all-pairs set."""
  rng = np.random.default_rng(0)
  same = np.repeat([1, 0], [1000, 100_000])
  # Normals two deviations apart, so that the ratio is 2 s - 2.
  ratio = 2 * (rng.normal(size=same.size) + 2 * same) - 2
  logits = ratio + math.log(1000 / 100_000)
  kept = metrics.cllr(logits, same)
  removed = metrics.cllr(
    metrics.log_likelihood_ratio(
      logits, num_genuine=1000, num_impostor=100_000
    ),
    same,
  )
  assert abs(kept - 2.098) < 0.1
  assert abs(removed - 0.521) < 0.03
  assert metrics.min_cllr(logits, same) <= removed


@pytest.mark.parametrize("scores, same", metric_cases.PAIRS)
def test_no_monotone_map_beats_the_minimum(scores, same):
  least = metrics.min_cllr(scores, same)
  assert 0 <= least <= 1
  for a, b in ((1, 0), (0.5, -0.3), (2, 1), (0, 0), (3, -4)):
    assert metrics.cllr(a * scores + b, same) >= least - 1e-12
  fit = metrics.fit_isotonic(scores, same)
  assert metrics.cllr(fit.llr(scores), same) >= least - 1e-12
  assert metrics.min_cllr(np.exp(scores), same) == least
  assert metrics.min_cllr(scores.astype(np.float32) * 0, same) == 1.0


def test_cllr_of_known_systems():
  assert metrics.cllr([0.0, 0.0, 0.0], [1, 0, 0]) == 1.0
  assert metrics.cllr([800.0, -800.0], [1, 0]) == 0.0
  # Certain and wrong: 1000 nats, finite.
  wrong = metrics.cllr([-1000.0, 1000.0], [1, 0])
  assert math.isclose(wrong, 1000 / math.log(2))
  assert metrics.min_cllr([0.9, 0.8, 0.2], [1, 1, 0]) == 0.0


def test_cllr_does_not_depend_on_the_share_of_genuine_pairs():
  scores, same = metric_cases.PAIRS[0]
  more = np.concatenate([scores, *[scores[same == 0]] * 9])
  labels = np.concatenate([same, np.zeros(9 * (same == 0).sum(), int)])
  for function in (metrics.cllr, metrics.min_cllr):
    assert math.isclose(function(more, labels), function(scores, same))
  assert not math.isclose(metrics.nll(more, labels), metrics.nll(scores, same))


@pytest.mark.parametrize("scores, same", metric_cases.PAIRS[:9])
def test_agree_with_scikit_learn(scores, same):
  p = _sigmoid(scores)
  assert math.isclose(
    metrics.brier(p, same), sklearn_metrics.brier_score_loss(same, p)
  )
  assert math.isclose(
    metrics.nll(scores, same), sklearn_metrics.log_loss(same, p)
  )


def test_nll_stays_finite_where_probabilities_round():
  found = metrics.nll([-800.0, 800.0], [1, 0])
  assert math.isclose(found, 800.0)


def test_true_probabilities_are_calibrated():
  rng = np.random.default_rng(0)
  p = rng.random(200_000)
  same = (rng.random(p.size) < p).astype(int)
  assert metrics.ece(p, same, bins=10) < 0.006
  assert abs(metrics.brier(p, same) - 1 / 6) < 0.002
  # Twice as sure as true.
  sure = _sigmoid(2 * np.log(p / (1 - p)))
  assert metrics.ece(sure, same, bins=10) > 0.05
  assert metrics.brier(sure, same) > metrics.brier(p, same)


def test_ece_of_known_probabilities():
  assert metrics.ece([1.0, 0.0], [1, 0]) == 0.0
  assert metrics.ece([0.0, 1.0], [1, 0]) == 1.0
  # One bin compares the means; more bins never say less here.
  p, same = np.array([0.2, 0.8, 0.5, 0.5]), [1, 0, 1, 0]
  assert metrics.ece(p, same, bins=1) == 0.0
  assert math.isclose(metrics.ece(p, same, bins=5), 0.4)
  # 0.3 lies in the bin that ends there, 3 of 10.
  assert math.isclose(
    metrics.ece([0.3, 0.25, 0.9], [1, 0, 1], bins=10), (0.45 + 0.1) / 3
  )


def test_invariant_to_order():
  scores, same = metric_cases.PAIRS[0]
  order = np.random.default_rng(0).permutation(scores.size)
  for function, values in (
    (metrics.cllr, scores),
    (metrics.min_cllr, scores),
    (metrics.nll, scores),
    (metrics.brier, _sigmoid(scores)),
    (metrics.ece, _sigmoid(scores)),
  ):
    one, other = function(values, same), function(values[order], same[order])
    assert math.isclose(one, other, rel_tol=1e-12)


def test_float32_is_summed_in_float64():
  scores, same = metric_cases.PAIRS[1]
  low = scores.astype(np.float32)
  for function in (metrics.cllr, metrics.min_cllr, metrics.nll):
    wide = function(low.astype(np.float64), same)
    assert math.isclose(function(low, same), wide, rel_tol=1e-12)


@pytest.mark.parametrize(
  "function, name",
  [
    (metrics.cllr, "llrs"),
    (metrics.min_cllr, "scores"),
    (metrics.nll, "logits"),
    (metrics.brier, "probabilities"),
    (metrics.ece, "probabilities"),
  ],
)
def test_bad_input_is_refused_by_name(function, name):
  for bad in (math.nan, math.inf):
    with pytest.raises(ValueError, match=f"{name} must be finite"):
      function([0.1, bad], [0, 1])
  with pytest.raises(ValueError, match=f"{name} must have rank 1"):
    function([[0.1, 0.2]], [[0, 1]])
  with pytest.raises(ValueError, match=f"shape of {name}"):
    function([0.1, 0.2], [0, 1, 1])
  with pytest.raises(ValueError, match="same must hold at least one"):
    function([0.1, 0.2], [0, 0])
  with pytest.raises(ValueError, match="same must hold at least one"):
    function([], [])


def test_probabilities_out_of_range_are_refused_by_name():
  for function in (metrics.brier, metrics.ece):
    for bad in (-0.1, 1.2):
      with pytest.raises(ValueError, match="probabilities must lie in 0..1"):
        function([0.1, bad], [0, 1])
  with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
    metrics.ece([0.1, 0.2], [0, 1], bins=0)
