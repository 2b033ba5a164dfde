"""Tests of facesiam_jax.metrics.identification."""

import numpy as np
import pytest
from reference import metric_cases
from reference import metrics_search as reference

from facesiam_jax.metrics import identification


def test_ranks_equal_loop_reference():
  # With one image of each person but one, the references are known.
  rng = np.random.default_rng(2)
  ids = np.array([9, 4, 4, 6, 1])
  for _ in range(20):
    similarity = rng.integers(0, 4, size=(5, 5))
    counts = identification.rank_counts(similarity, ids, draws=40).counts
    first = reference.ranks_for_references(
      similarity, ids, {9: 0, 4: 1, 6: 3, 1: 4}
    )
    second = reference.ranks_for_references(
      similarity, ids, {9: 0, 4: 2, 6: 3, 1: 4}
    )
    assert set(np.flatnonzero(counts) + 1) == {*first, *second}


def test_perfect_and_constant_similarity():
  _, ids = metric_cases.square()
  same = (ids[:, None] == ids[None]).astype(float)
  assert identification.one_shot_accuracy(same, ids) == 1.0
  assert identification.one_shot_accuracy(-same, ids) == 0.0
  # Ties count against the system.
  assert identification.one_shot_accuracy(np.ones_like(same), ids) == 0.0
  np.testing.assert_array_equal(
    identification.cmc(np.ones_like(same), ids), [0, 0, 0, 0, 1]
  )


def test_chance_level():
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(20), 6)
  noise = rng.normal(size=(120, 120))
  for ways in (2, 5, 20):
    accuracy = identification.one_shot_accuracy(noise, ids, ways=ways)
    assert abs(accuracy - 1 / ways) < 0.05


def test_cmc_is_cumulative_and_starts_at_one_shot_accuracy():
  similarity, ids = metric_cases.square()
  curve = identification.cmc(similarity, ids, seed=3)
  assert curve.shape == (5,)
  assert curve[-1] == 1.0
  assert (np.diff(curve) >= 0).all()
  assert curve[0] == identification.one_shot_accuracy(similarity, ids, seed=3)
  counts = identification.rank_counts(similarity, ids, seed=3)
  # 15 images, 5 people: 10 probes in each of 200 draws.
  assert counts.num_probes == 2000
  assert (counts.draws, counts.ways) == (200, 5)


def test_invariances():
  similarity, ids = metric_cases.square()
  base = identification.rank_counts(similarity, ids, seed=5).counts
  again = identification.rank_counts(similarity, ids, seed=5).counts
  other = identification.rank_counts(similarity, ids, seed=6).counts
  mapped = identification.rank_counts(np.exp(similarity), ids, seed=5).counts
  renamed = identification.rank_counts(similarity, ids * 2 + 1, seed=5).counts
  np.testing.assert_array_equal(base, again)
  np.testing.assert_array_equal(base, mapped)
  np.testing.assert_array_equal(base, renamed)
  assert (base != other).any()


def test_the_diagonal_is_never_read():
  similarity, ids = metric_cases.square()
  expected = identification.one_shot_accuracy(similarity, ids)
  np.fill_diagonal(similarity, np.nan)
  assert identification.one_shot_accuracy(similarity, ids) == expected


def test_bad_input_is_refused_by_name():
  similarity, ids = metric_cases.square()
  check = identification.one_shot_accuracy
  with pytest.raises(ValueError, match=r"similarity must have shape \[15, 15"):
    check(similarity[:-1], ids)
  with pytest.raises(ValueError, match="identity_ids must be"):
    check(np.zeros((0, 0)), [])
  with pytest.raises(ValueError, match="identity_ids must be"):
    check(similarity, ids[:, None])
  with pytest.raises(ValueError, match="at least 2 people"):
    check(similarity, np.zeros(15, int))
  with pytest.raises(ValueError, match="no draw had a person with two"):
    check(similarity, np.arange(15))
  with pytest.raises(ValueError, match="draws must be at least 1"):
    check(similarity, ids, draws=0)
  for ways in (1, 6):
    with pytest.raises(ValueError, match="ways must lie in 2..5"):
      check(similarity, ids, ways=ways)
  for bad in (np.nan, np.inf):
    broken = similarity.copy()
    broken[0, 1] = bad
    with pytest.raises(ValueError, match="similarity must be finite"):
      check(broken, ids)
