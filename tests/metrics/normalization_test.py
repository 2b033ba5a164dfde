"""Tests of facesiam_jax.metrics.normalization."""

import math

import numpy as np
import pytest

from facesiam_jax import metrics


def _case(seed=0):
  rng = np.random.default_rng(seed)
  return (
    rng.normal(size=(3, 5)),
    rng.normal(size=(3, 7)),
    rng.normal(size=(5, 11)),
  )


def test_scores_of_the_cohort_itself_become_standard():
  _, enrolled, _ = _case()
  found = metrics.z_norm(enrolled, enrolled)
  np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-12)
  np.testing.assert_allclose(found.std(axis=1), 1)
  np.testing.assert_allclose(metrics.t_norm(enrolled.T, enrolled), found.T)


def test_shift_and_scale_of_an_image_do_not_matter():
  scores, enrolled, probes = _case()
  base = metrics.z_norm(scores, enrolled)
  shift, scale = np.array([[3.0], [0.0], [-5.0]]), np.array([[2.0], [1], [0.1]])
  moved = metrics.z_norm(scores * scale + shift, enrolled * scale + shift)
  np.testing.assert_allclose(moved, base, rtol=1e-10, atol=1e-10)
  base = metrics.t_norm(scores, probes)
  moved = metrics.t_norm(scores + np.arange(5), probes + np.arange(5)[:, None])
  np.testing.assert_allclose(moved, base, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("top_k", [None, 3])
def test_s_norm_is_symmetric(top_k):
  scores, enrolled, probes = _case()
  found = metrics.s_norm(scores, enrolled, probes, top_k=top_k)
  turned = metrics.s_norm(scores.T, probes, enrolled, top_k=top_k)
  np.testing.assert_allclose(turned, found.T, rtol=1e-12)


def test_the_whole_cohort_is_the_top_of_it():
  scores, enrolled, _ = _case()
  np.testing.assert_allclose(
    metrics.z_norm(scores, enrolled, top_k=7), metrics.z_norm(scores, enrolled)
  )


def test_order_of_the_cohort_does_not_matter():
  scores, enrolled, _ = _case()
  order = np.random.default_rng(0).permutation(7)
  for top_k in (None, 2):
    np.testing.assert_allclose(
      metrics.z_norm(scores, enrolled[:, order], top_k=top_k),
      metrics.z_norm(scores, enrolled, top_k=top_k),
      rtol=1e-12,
    )


def test_a_cohort_without_spread_stays_finite():
  found = metrics.z_norm([[0.5]], [[0.2, 0.2]])
  np.testing.assert_allclose(found, 0.3 / 1e-3)
  one = metrics.cohort_statistics([[0.4]], sd_floor=0.5)
  assert (one.mean[0], one.sd[0]) == (0.4, 0.5)


def test_pairs_in_a_list_by_their_statistics():
  scores, enrolled, _ = _case()
  i, j = np.array([0, 2, 1]), np.array([4, 0, 3])
  stats = metrics.cohort_statistics(enrolled)
  found = (scores[i, j] - stats.mean[i]) / stats.sd[i]
  np.testing.assert_allclose(found, metrics.z_norm(scores, enrolled)[i, j])


def test_it_puts_faces_that_resemble_everybody_on_one_scale():
  """One threshold does better after than before."""
  rng = np.random.default_rng(0)
  easy = rng.normal(size=60)
  scores = rng.normal(size=(60, 60)) * 0.5 + easy[:, None] + easy[None]
  scores += 1.5 * np.eye(60)
  cohort = rng.normal(size=(60, 200)) * 0.5 + easy[:, None]
  cohort += rng.normal(size=200)
  same = np.eye(60).ravel()
  before = metrics.eer(scores.ravel(), same).rocch
  after = metrics.s_norm(scores, cohort, cohort)
  assert metrics.eer(after.ravel(), same).rocch < 0.65 * before


def test_float32_is_normalised_in_float64():
  scores, enrolled, probes = (x.astype(np.float32) for x in _case())
  found = metrics.s_norm(scores, enrolled, probes)
  assert found.dtype == np.float64
  wide = metrics.s_norm(
    *(x.astype(np.float64) for x in (scores, enrolled, probes))
  )
  np.testing.assert_array_equal(found, wide)


def test_bad_input_is_refused_by_name():
  scores, enrolled, probes = _case()
  with pytest.raises(ValueError, match="enrolled_cohort must have one row for"):
    metrics.z_norm(scores, probes)
  with pytest.raises(ValueError, match="each of the columns of scores"):
    metrics.t_norm(scores, enrolled)
  with pytest.raises(ValueError, match="probe_cohort must have one row"):
    metrics.s_norm(scores, enrolled, enrolled)
  with pytest.raises(ValueError, match="scores must have rank 2"):
    metrics.z_norm(scores[0], enrolled)
  with pytest.raises(ValueError, match="scores must be finite"):
    metrics.z_norm(scores * math.nan, enrolled)
  with pytest.raises(ValueError, match="enrolled_cohort must be finite"):
    metrics.z_norm(scores, enrolled * math.inf)
  with pytest.raises(ValueError, match="probe_cohort must not be empty"):
    metrics.t_norm(scores, np.zeros((5, 0)))
  for top_k in (0, 8):
    with pytest.raises(ValueError, match="top_k must lie in 1..7, the columns"):
      metrics.z_norm(scores, enrolled, top_k=top_k)
  for floor in (0.0, -1.0, math.nan):
    with pytest.raises(ValueError, match="sd_floor must be positive"):
      metrics.cohort_statistics(enrolled, sd_floor=floor)
