"""Tests of facesiam_jax.metrics.isotonic."""

import math

import numpy as np
import pytest
from reference import metric_cases, metrics_calibration
from sklearn.isotonic import IsotonicRegression

from facesiam_jax import metrics
from facesiam_jax.metrics import isotonic


def _textbook_ends(genuine, impostor):
  scores = np.repeat(np.arange(genuine.size), genuine + impostor)
  same = np.concatenate(
    [[1] * g + [0] * i for g, i in zip(genuine, impostor, strict=True)]
  )
  blocks = metrics_calibration.pooled(scores.tolist(), same.tolist())
  return [high + 1 for _, high, _, _ in blocks]


@pytest.mark.parametrize("seed", range(30))
def test_blocks_equal_the_textbook(seed):
  rng = np.random.default_rng(seed)
  size = rng.integers(1, 40)
  genuine, impostor = rng.integers(0, 3, size=(2, size))
  impostor += (genuine + impostor) == 0
  ends = isotonic.block_ends(genuine, impostor)
  assert ends.tolist() == _textbook_ends(genuine, impostor)


@pytest.mark.parametrize(
  "genuine, impostor",
  [
    # Rising share: no pooling at all.
    (np.arange(1, 60), np.arange(59, 0, -1)),
    # Falling share: one block.
    (np.arange(59, 0, -1), np.arange(1, 60)),
    # Rising, and a last entry that pools one block after the other.
    (np.append(np.arange(1, 60), 0), np.append(np.arange(59, 0, -1), 900)),
    # The same from below.
    (np.append(900, np.arange(1, 60)), np.append(0, np.arange(59, 0, -1))),
    (np.array([1]), np.array([0])),
    (np.array([2, 2, 2]), np.array([3, 3, 3])),
  ],
)
def test_blocks_of_awkward_shapes(genuine, impostor):
  ends = isotonic.block_ends(genuine, impostor)
  assert ends.tolist() == _textbook_ends(genuine, impostor)


@pytest.mark.parametrize("seed", range(20))
def test_blocks_point_by_point_are_the_same(seed):
  # Inputs that need this path by themselves are hard to come by.
  rng = np.random.default_rng(seed)
  genuine, impostor = rng.integers(0, 3, size=(2, 30))
  impostor += (genuine + impostor) == 0
  total = np.append(0, np.cumsum(genuine + impostor))
  hits = np.append(0, np.cumsum(genuine))
  ends = isotonic._one_by_one(total, hits, np.arange(31))
  assert ends.tolist() == _textbook_ends(genuine, impostor)


@pytest.mark.parametrize("seed", range(4))
def test_shares_agree_with_scikit_learn(seed):
  scores, same = metric_cases.pairs(seed, ties=seed % 2 == 0)
  span = scores.max() - scores.min()
  padding = np.repeat([scores.min() - span, scores.max() + span], 2)
  fitted = IsotonicRegression(y_min=0, y_max=1).fit(
    [*scores, *padding], [*same, 1, 0, 1, 0]
  )
  shares = fitted.predict(scores)
  prior = math.log(15 / 31)
  expected = np.log(shares) - np.log1p(-shares) - prior
  found = metrics.fit_isotonic(scores, same).llr(scores)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scores, same", metric_cases.PAIRS)
def test_the_map_rises_and_is_finite_everywhere(scores, same):
  fit = metrics.fit_isotonic(scores, same)
  assert fit.scores.shape == fit.llrs.shape
  assert (np.diff(fit.scores) >= 0).all()
  assert (np.diff(fit.llrs) >= 0).all()
  assert np.isfinite(fit.llrs).all()
  far = fit.llr([-1e30, 1e30])
  np.testing.assert_array_equal(far, fit.llrs[[0, -1]])


def test_no_information_gives_zero():
  scores, same = metric_cases.pairs(0, False, 500, 1500)
  for useless in (-scores, np.zeros(2000)):
    fit = metrics.fit_isotonic(useless, same)
    np.testing.assert_allclose(fit.llr(useless), 0.0, atol=0.01)
  # The two pairs added below weigh as much as these two.
  fit = metrics.fit_isotonic([0.5, 0.5], [1, 0])
  np.testing.assert_allclose(fit.llr([0.0, 0.7]), 0.0, atol=1e-15)


def test_finds_the_true_ratio_whatever_the_share_of_impostors():
  at = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
  for num_impostor in (20000, 200000):
    scores, same = metric_cases.pairs(0, False, 20000, num_impostor)
    found = metrics.fit_isotonic(scores, same).llr(at)
    # Normals one apart by 1.3: the ratio is 1.3 s - 1.3^2 / 2.
    np.testing.assert_allclose(found, 1.3 * at - 0.845, atol=0.2)


def test_helps_pairs_it_was_not_fitted_to():
  scores, same = metric_cases.pairs(0, False, 2000, 6000)
  fresh, labels = metric_cases.pairs(1, False, 2000, 6000)
  fit = metrics.fit_isotonic(scores**3, same)
  ours = metrics.cllr(fit.llr(fresh**3), labels)
  assert ours < metrics.cllr(fresh**3, labels)
  assert ours < metrics.min_cllr(fresh, labels) + 0.02


def test_only_the_order_matters():
  scores, same = metric_cases.PAIRS[0]
  base = metrics.fit_isotonic(scores, same)
  order = np.random.default_rng(0).permutation(scores.size)
  again = metrics.fit_isotonic(scores[order], same[order])
  np.testing.assert_array_equal(again.llrs, base.llrs)
  mapped = metrics.fit_isotonic(np.exp(scores), same)
  np.testing.assert_array_equal(mapped.llrs, base.llrs)
  np.testing.assert_allclose(mapped.scores, np.exp(base.scores))


def test_bad_input_is_refused_by_name():
  with pytest.raises(ValueError, match="scores must be finite"):
    metrics.fit_isotonic([0.1, math.nan], [0, 1])
  with pytest.raises(ValueError, match="same must hold at least one"):
    metrics.fit_isotonic([0.1, 0.2], [1, 1])
  fit = metrics.fit_isotonic([0.1, 0.2], [0, 1])
  with pytest.raises(ValueError, match="scores must be finite"):
    fit.llr([math.nan])
  with pytest.raises(ValueError, match="scores must have rank 1"):
    fit.llr(0.5)
