"""Tests of facesiam_jax.training.open_set."""

import json

import numpy as np

from facesiam_jax import metrics
from facesiam_jax.training import calibrate, open_set


def _group(people, seed):
  rng = np.random.default_rng(seed)
  count = len(people)
  noise = rng.normal(size=(count, count))
  matrix = noise + noise.T + 6.0 * (people[:, None] == people[None])
  i, j = np.triu_indices(count, 1)
  values = matrix[i, j].astype(np.float32)
  return matrix, calibrate.Scores(values, people[i], people[j])


def test_the_largest_group_is_found_again():
  rng = np.random.default_rng(0)
  small = rng.permutation(np.repeat(np.arange(4), 3))
  large = rng.permutation(np.repeat(np.arange(4, 9), 3))
  pooled = calibrate.pool([_group(small, 1)[1], _group(large, 2)[1]])
  matrix, _ = _group(large, 2)
  found = open_set.largest_square(pooled.values, pooled.people_a,
                                  pooled.people_b)  # fmt: skip
  similarity, people = found
  np.testing.assert_array_equal(people, large)
  np.fill_diagonal(matrix, 0)
  np.testing.assert_allclose(similarity, matrix, rtol=1e-6)


def test_pairs_in_another_order_have_no_matrix():
  _, scores = _group(np.repeat(np.arange(4), 3), 0)
  rng = np.random.default_rng(0)
  for order in (rng.permutation(66), np.arange(65), np.arange(1, 66)):
    given = (scores.values, scores.people_a, scores.people_b)
    assert open_set.largest_square(*(x[order] for x in given)) is None


def test_the_record_is_what_the_metrics_measure():
  matrix, scores = _group(np.repeat(np.arange(40), 3), 0)
  found = {"eer": {"logit": 3.0}, "fmr_0.01": {"logit": 4.0}}
  record = open_set.record(scores.values, scores, found)
  json.dumps(record)
  assert record["sizes"] == [1, 2, 5, 10, 20, 39] and record["people"] == 40
  logits, rates = record["logits"], record["fmr"]
  assert {3.0, 4.0} <= set(logits) and logits == sorted(logits)
  for logit, rate in zip(logits, rates, strict=True):
    want = metrics.error_rates_at(scores.values, scores.same, logit).fmr
    assert rate == want
  assert min(rates) <= record["smallest_fmr"] < 0.01 < max(rates)
  same = np.repeat(np.arange(40), 3)
  matrix = matrix.astype(np.float32).astype(np.float64)
  measured = metrics.fpir_by_size(
    matrix, same, logits, record["sizes"], draws=10
  )
  np.testing.assert_allclose(record["fpir"], measured.fpir, atol=1e-6)
  np.testing.assert_allclose(record["high"], measured.high, atol=1e-6)


def test_few_people_record_what_they_can():
  _, scores = _group(np.repeat(np.arange(3), 2), 0)
  record = open_set.record(scores.values, scores, {})
  assert record["smallest_fmr"] is None and record["sizes"] == [1, 2]
  assert record["low"] is None and "30 people" in record["reason"]


def test_of_very_many_images_some_are_measured(monkeypatch):
  monkeypatch.setattr(open_set, "_MOST_IMAGES", 50)
  _, scores = _group(np.repeat(np.arange(40), 3), 0)
  record = open_set.record(scores.values, scores, {})
  assert 30 <= record["people"] < 40
  assert record["sizes"][-1] == record["people"] - 1
