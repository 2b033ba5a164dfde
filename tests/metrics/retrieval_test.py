"""Tests of facesiam_jax.metrics.retrieval."""

import math

import numpy as np
import pytest
from reference import metric_cases
from sklearn.metrics import average_precision_score

from facesiam_jax import metrics

_FUNCTIONS = [metrics.map_at_r, metrics.r_precision, metrics.precision_at_1]


def test_map_at_r_is_the_average_precision_of_the_r_best():
  similarity, ids = metric_cases.square(0)
  expected = []
  for row, person in enumerate(ids):
    others = np.delete(np.arange(ids.size), row)
    own = ids[others] == person
    if not own.any():
      continue
    best = np.argsort(-similarity[row, others])[: own.sum()]
    hits = own[best].sum()
    if hits:
      # scikit-learn divides by the hits in the list, not by R.
      score = average_precision_score(own[best], similarity[row, others][best])
      expected.append(score * hits / own.sum())
    else:
      expected.append(0.0)
  assert math.isclose(metrics.map_at_r(similarity, ids), np.mean(expected))


def test_the_order_within_r_counts_for_map_only():
  # The query's person has two references, first and second, or second alone.
  ids, references = [1], [1, 1, 2, 2]
  for scores, precision, mean in (
    ([9, 8, 7, 6], 1.0, 1.0),
    ([9, 6, 8, 7], 0.5, 0.5),
    ([8, 6, 9, 7], 0.5, 0.25),
    ([7, 6, 9, 8], 0.0, 0.0),
  ):
    row = np.array([scores], float)
    assert metrics.r_precision(row, ids, references) == precision
    assert metrics.map_at_r(row, ids, references) == mean
    assert metrics.precision_at_1(row, ids, references) == (scores[0] == 9)


def test_map_never_exceeds_r_precision():
  for seed in range(5):
    case = metric_cases.square(seed, ties=True)
    assert metrics.map_at_r(*case) <= metrics.r_precision(*case)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_perfect_inverted_and_collapsed(function):
  _, ids = metric_cases.square(0)
  same = (ids[:, None] == ids[None]).astype(float)
  assert function(same, ids) == 1.0
  assert function(-same, ids) == 0.0
  assert function(np.ones_like(same), ids) == 0.0


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_invariances(function):
  similarity, ids = metric_cases.square(1, ties=True)
  base = function(similarity, ids)
  order = np.random.default_rng(0).permutation(ids.size)
  moved = function(similarity[np.ix_(order, order)], ids[order])
  assert math.isclose(moved, base)
  assert function(np.exp(similarity), ids) == base
  assert function(similarity, ids.astype(str)) == base
  # The diagonal is never read, and the argument is left alone.
  broken = similarity.copy()
  np.fill_diagonal(broken, math.nan)
  assert function(broken, ids) == base
  assert np.isnan(np.diagonal(broken)).all()


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_queries_may_be_other_images_than_the_references(function):
  similarity, ids = metric_cases.square(2)
  queries, references = np.arange(6), np.arange(6, ids.size)
  found = function(
    similarity[np.ix_(queries, references)], ids[queries], ids[references]
  )
  # The same within one matrix in which other columns are of nobody.
  assert 0 < found < 1
  hidden = similarity[queries].copy()
  hidden[:, queries] = -99.0
  strangers = np.where(np.arange(ids.size) < 6, -np.arange(ids.size) - 1, ids)
  assert function(hidden, ids[queries], strangers) == found


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_singletons_are_left_out(function):
  similarity, ids = metric_cases.square(0)
  lone = np.flatnonzero(ids == 24)
  assert lone.size == 1
  base = function(similarity, ids)
  # Whatever such a query finds.
  changed = similarity.copy()
  changed[lone] = np.random.default_rng(0).normal(size=ids.size)
  assert function(changed, ids) == base
  # It stays a reference, which others may find before their own.
  changed[:, lone] = 99.0
  assert function(changed, ids) < base


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_bad_input_is_refused_by_name(function):
  similarity, ids = metric_cases.square(0)
  with pytest.raises(
    ValueError, match=r"similarity must have shape \[15, 15\]"
  ):
    function(similarity[:-1], ids)
  with pytest.raises(ValueError, match=r"query_ids must be \[N\] with N > 0"):
    function(np.zeros((0, 0)), [])
  with pytest.raises(ValueError, match="reference_ids must be integers or"):
    function(similarity, ids, ids / 2)
  with pytest.raises(ValueError, match="no query has a reference"):
    function(similarity, np.arange(15))
  with pytest.raises(ValueError, match="no query has a reference"):
    function(similarity, ids, ids + 1)
  for bad in (math.nan, math.inf):
    broken = similarity.copy()
    broken[0, 1] = bad
    with pytest.raises(ValueError, match="similarity must be finite"):
      function(broken, ids)
  broken = similarity.copy()
  np.fill_diagonal(broken, math.nan)
  with pytest.raises(ValueError, match="similarity must be finite"):
    function(broken, ids, ids)
