"""Tests of facesiam_jax.metrics.open_set."""

import math

import numpy as np
import pytest
from reference import metric_cases

from facesiam_jax import metrics

_CASE = metric_cases.search(1, ties=True)


def test_the_curve_runs_from_silence_to_everything():
  curve = metrics.open_set_curve(*_CASE)
  assert curve.thresholds[0] == math.inf
  assert (curve.fpir[0], curve.fnir[0]) == (0.0, 1.0)
  assert curve.fpir[-1] == 1.0
  assert (np.diff(curve.thresholds) < 0).all()
  assert (np.diff(curve.fpir) >= 0).all()
  assert (np.diff(curve.fnir) <= 0).all()
  # Without a threshold, what is left are the misses of rank 1.
  similarity, probes, gallery = _CASE
  mated = np.isin(probes, gallery)
  first = metrics.rank_k(similarity[mated], probes[mated], gallery, k=1)
  assert 0 < first < 1
  assert math.isclose(curve.fnir[-1], 1 - first)


def test_the_three_views_agree():
  curve = metrics.open_set_curve(*_CASE)
  for threshold, fpir, fnir in zip(*curve, strict=True):
    assert metrics.open_set_rates_at(*_CASE, threshold) == (fpir, fnir)
  for target in (0.0, 0.2, 0.5, 1.0):
    fnir, threshold = metrics.fnir_at_fpir(*_CASE, target)
    within = curve.fpir <= target
    assert fnir == curve.fnir[within].min()
    rates = metrics.open_set_rates_at(*_CASE, threshold)
    assert rates.fpir <= target
    assert rates.fnir == fnir


def test_everybody_in_reach_misses_nobody():
  num_people = len(set(_CASE[2].tolist()))
  curve = metrics.open_set_curve(*_CASE, rank=num_people)
  assert curve.fnir[-1] == 0.0


def test_invariant_to_order_names_and_monotone_maps():
  similarity, probes, gallery = _CASE
  base = metrics.open_set_curve(*_CASE)
  rng = np.random.default_rng(0)
  rows, columns = (rng.permutation(n) for n in similarity.shape)
  moved = similarity[np.ix_(rows, columns)]
  for again in (
    metrics.open_set_curve(moved, probes[rows], gallery[columns]),
    metrics.open_set_curve(similarity, probes.astype(str), gallery.astype(str)),
    metrics.open_set_curve(similarity, 100 - probes, 100 - gallery),
  ):
    for one, other in zip(base, again, strict=True):
      np.testing.assert_array_equal(one, other)
  mapped = metrics.open_set_curve(np.exp(similarity), probes, gallery)
  np.testing.assert_array_equal(mapped.fnir, base.fnir)
  np.testing.assert_array_equal(mapped.fpir, base.fpir)


def test_more_templates_of_strangers_raise_false_positives():
  """FPIR = 1 - (1 - FMR)^N for independent scores."""
  rng = np.random.default_rng(0)
  probes = np.append(np.zeros(2, int), np.full(4000, -1))
  for size in (1, 10, 100):
    similarity = rng.random((probes.size, size))
    fpir, _ = metrics.open_set_rates_at(
      similarity, probes, np.arange(size), 0.99
    )
    assert abs(fpir - (1 - 0.99**size)) < 0.025


def test_a_collapsed_embedding_finds_nobody():
  similarity, probes, gallery = _CASE
  same = np.ones_like(similarity)
  assert metrics.open_set_rates_at(same, probes, gallery, 0.5) == (1.0, 1.0)
  assert metrics.fnir_at_fpir(same, probes, gallery, 0.5).fnir == 1.0
  known = np.isin(probes, gallery)
  for k in (1, 4):
    assert metrics.rank_k(same[known], probes[known], gallery, k=k) == 0.0
  assert metrics.rank_k(same[known], probes[known], gallery, k=5) == 1.0


def test_the_threshold_survives_storing_as_float32():
  similarity = np.array([[0.5], [0.7]], np.float32)
  fnir, threshold = metrics.fnir_at_fpir(similarity, [3, 9], [3], 0.0)
  assert fnir == 1.0
  assert np.float32(threshold) == threshold > np.float32(0.7)


def test_nothing_is_above_the_largest_number():
  top = float(np.finfo(np.float64).max)
  found = metrics.fnir_at_fpir([[0.0], [top]], [5, 8], [5], 0.0)
  assert found == (1, math.inf)


def test_rank_k_grows_to_one():
  similarity, probes, gallery = metric_cases.search(2, strangers=False)
  shares = [
    metrics.rank_k(similarity, probes, gallery, k=k) for k in range(1, 6)
  ]
  assert shares == sorted(shares)
  assert shares[0] < shares[-1] == 1.0


@pytest.mark.parametrize(
  "function",
  [
    metrics.open_set_curve,
    lambda *a, **k: metrics.open_set_rates_at(*a, 0.5, **k),
    lambda *a, **k: metrics.fnir_at_fpir(*a, 0.5, **k),
    lambda *a, rank=1: metrics.rank_k(*a, k=rank),
  ],
)
def test_bad_searches_are_refused_by_name(function):
  similarity, probes, gallery = _CASE
  with pytest.raises(
    ValueError, match=r"similarity must have shape \[23, 11\]"
  ):
    function(similarity[:, :-1], probes, gallery)
  with pytest.raises(ValueError, match="similarity must have rank 2"):
    function(similarity[0], probes, gallery)
  with pytest.raises(ValueError, match="similarity must not be empty"):
    function(np.zeros((0, 0)), [], [])
  for bad in (math.nan, math.inf):
    broken = similarity.copy()
    broken[3, 4] = bad
    with pytest.raises(ValueError, match="similarity must be finite"):
      function(broken, probes, gallery)
  with pytest.raises(ValueError, match="probe_ids must be integers or"):
    function(similarity, probes.astype(float), gallery)
  with pytest.raises(ValueError, match=r"gallery_ids must be \[N\]"):
    function(similarity, probes, gallery[None])
  for rank in (0, 6):
    with pytest.raises(ValueError, match="must lie in 1..5, the people"):
      function(similarity, probes, gallery, rank=rank)


def test_both_kinds_of_search_are_needed():
  similarity, probes, gallery = _CASE
  known = np.isin(probes, gallery)
  for chosen in (known, ~known):
    with pytest.raises(ValueError, match="probe_ids must hold people who are"):
      metrics.open_set_curve(similarity[chosen], probes[chosen], gallery)
  with pytest.raises(ValueError, match="probe_ids must all be enrolled, but 8"):
    metrics.rank_k(similarity, np.where(np.arange(23) < 8, 99, 2), gallery, k=1)


def test_bad_thresholds_and_targets_are_refused_by_name():
  with pytest.raises(ValueError, match="threshold must be a number"):
    metrics.open_set_rates_at(*_CASE, math.nan)
  for target in (-0.1, 1.1, math.nan):
    with pytest.raises(ValueError, match="target must lie in 0..1"):
      metrics.fnir_at_fpir(*_CASE, target)
