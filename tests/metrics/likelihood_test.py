"""Tests of facesiam_jax.metrics.likelihood."""

import math

import numpy as np
import pytest
from reference import metric_cases
from scipy import optimize

from facesiam_jax import metrics


def test_prior_odds_out_and_in_again():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=9)
  llrs = metrics.log_likelihood_ratio(logits, num_genuine=3, num_impostor=17)
  again = metrics.probability(llrs, prior=3 / 20)
  np.testing.assert_allclose(again, 1 / (1 + np.exp(-logits)), rtol=1e-12)


def test_probability_of_no_evidence_is_the_prior():
  for prior in (1e-9, 0.2, 0.5, 1 - 1e-9):
    found = metrics.probability([0.0], prior=prior)
    assert math.isclose(found[0], prior, rel_tol=1e-12)


def test_probability_is_bounded_monotone_and_exact_when_small():
  llrs = np.array([-800.0, -700.0, -40.0, 0.0, 40.0, 800.0])
  found = metrics.probability(llrs, prior=0.5)
  assert (np.diff(found) >= 0).all()
  assert 0 <= found[0] and found[-1] == 1.0
  assert math.isclose(found[2], math.exp(-40), rel_tol=1e-12)
  assert found[1] > 0
  other = metrics.probability(-llrs, prior=0.5)
  np.testing.assert_allclose(found + other, 1.0)


@pytest.mark.parametrize("prior", [0.0, 1.0, -0.1, 1.1, math.nan])
def test_a_prior_that_is_certain_is_refused(prior):
  with pytest.raises(ValueError, match="prior must lie inside 0..1"):
    metrics.probability([0.0], prior=prior)


def test_bad_ratios_are_refused_by_name():
  with pytest.raises(ValueError, match="llrs must be finite"):
    metrics.probability([math.nan], prior=0.5)
  with pytest.raises(ValueError, match="logits must not be empty"):
    metrics.log_likelihood_ratio([], num_genuine=1, num_impostor=1)
  for name in ("num_genuine", "num_impostor"):
    for bad in (0, -1, math.nan, math.inf):
      numbers = {"num_genuine": 1, "num_impostor": 1, name: bad}
      with pytest.raises(ValueError, match=f"{name} must be positive"):
        metrics.log_likelihood_ratio([0.0], **numbers)


def _loss(temperature, logits, same):
  signs = np.where(same == 1, -1, 1)
  losses = np.logaddexp(0, signs * logits / temperature)
  return losses[same == 1].mean() + losses[same == 0].mean()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_temperature_minimises_the_balanced_loss(seed, scale):
  scores, same = metric_cases.pairs(seed, seed % 2 == 0)
  logits = scale * (3 * scores - 2)
  found = metrics.fit_temperature(logits, same)
  best = optimize.minimize_scalar(
    lambda log_t: _loss(math.exp(log_t), logits, same),
    bounds=(math.log(scale) - 3, math.log(scale) + 4),
    method="bounded",
    options={"xatol": 1e-9},
  )
  assert math.isclose(found, math.exp(best.x), rel_tol=1e-5)


def test_temperature_undoes_a_factor():
  rng = np.random.default_rng(0)
  same = np.arange(40000) % 2
  # True log likelihood ratios of normals two apart.
  ratio = 2 * (rng.normal(size=same.size) + 2 * same) - 2
  for factor in (0.25, 1.0, 8.0):
    found = metrics.fit_temperature(factor * ratio, same)
    assert abs(found / factor - 1) < 0.05
  # Whatever the share of genuine pairs.
  many = np.concatenate([ratio, np.repeat(ratio[same == 0], 5)])
  labels = np.append(same, np.zeros(5 * 20000, int))
  assert math.isclose(
    metrics.fit_temperature(many, labels),
    metrics.fit_temperature(ratio, same),
    rel_tol=1e-9,
  )


def test_temperature_without_a_best_is_refused():
  with pytest.raises(ValueError, match="the temperature would be 0"):
    metrics.fit_temperature([2.0, 1.0, -1.0, -3.0], [1, 1, 0, 0])
  for logits in ([-1.0, 1.0], [1.0, 1.0]):
    with pytest.raises(ValueError, match="the temperature would be infinite"):
      metrics.fit_temperature(logits, [1, 0])
  # No evidence at all, and nothing wrong either.
  with pytest.raises(ValueError, match="the temperature would be 0"):
    metrics.fit_temperature([0.0, 0.0], [1, 0])


def test_temperature_of_one_rare_mistake_is_found():
  logits = np.append(np.full(999, 1.0), [-1e-3, *np.full(999, -1.0), 1e-3])
  same = np.repeat([1, 0], 1000)
  found = metrics.fit_temperature(logits, same)
  assert 0 < found < 0.2
  nearby = [_loss(t, logits, same) for t in (0.99 * found, found, 1.01 * found)]
  assert nearby[1] == min(nearby)


def test_bad_logits_are_refused_by_name():
  with pytest.raises(ValueError, match="logits must be finite"):
    metrics.fit_temperature([0.1, math.nan], [0, 1])
  with pytest.raises(ValueError, match="same must hold at least one"):
    metrics.fit_temperature([0.1, 0.2], [1, 1])
