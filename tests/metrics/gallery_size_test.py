"""Tests of facesiam_jax.metrics.gallery_size.

What it computes is checked in tests/wrong/metrics_gallery_size.py.
"""

import numpy as np
import pytest

from facesiam_jax import metrics
from facesiam_jax.metrics import intervals, thresholds


def _world(num_people, seed, effect=0.5):
  """Two images each; some people are like many (`effect`)."""
  rng = np.random.default_rng(seed)
  people = np.repeat(np.arange(num_people), 2)
  person = effect * rng.normal(size=num_people)
  noise = rng.normal(size=(len(people),) * 2)
  scores = (noise + noise.T) / 2**0.5 + person[people] + person[people][:, None]
  return scores, people


def test_the_interval_covers_what_many_people_show():
  at, sizes = [2.2, 3.0], [1, 10, 39]
  truth = metrics.fpir_by_size(*_world(300, 99), at, sizes, draws=5).fpir
  inside = []
  for seed in range(12):
    found = metrics.fpir_by_size(*_world(40, seed), at, sizes, draws=5)
    assert (found.low <= found.fpir).all() and (found.fpir <= found.high).all()
    inside.append((found.low <= truth) & (truth <= found.high))
  assert np.mean(inside) > 0.85
  # As if each image were one search among independent ones: too narrow.
  assert (found.high - found.low)[1, 0] > 2 * 1.96 * (0.2 * 0.8 / 400) ** 0.5


def test_no_false_positive_and_nothing_else():
  scores, people = _world(40, 0)
  found = metrics.fpir_by_size(scores, people, [-99.0, 99.0], [1, 39])
  bound = metrics.rule_of_three(40)
  np.testing.assert_array_equal(found.fpir, [[1, 0], [1, 0]])
  np.testing.assert_allclose(found.high, [[1, bound]] * 2)
  np.testing.assert_allclose(found.low, [[1 - bound, 0]] * 2)


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"sizes": [40]}, "1..39"),
    ({"sizes": [0]}, "1..39"),
    ({"people": [1, 2]}, "shape"),
    ({"similarity": np.full((80, 80), np.nan)}, "similarity"),
  ],
)
def test_refuses(changes, match):
  scores, people = _world(40, 0)
  right = {"similarity": scores, "people": people, "thresholds": [0.0],
           "sizes": [1]}  # fmt: skip
  with pytest.raises(ValueError, match=match):
    metrics.fpir_by_size(**{**right, **changes})


def test_refuses_what_is_no_share():
  for wrong in (-0.1, 1.1, np.nan):
    with pytest.raises(ValueError, match="fmr"):
      metrics.fpir_of_fmr(wrong, 3)
    with pytest.raises(ValueError, match="fpir"):
      metrics.fmr_of_fpir(wrong, 3)
  with pytest.raises(ValueError, match="size"):
    metrics.fpir_of_fmr(0.1, -1)
  with pytest.raises(ValueError, match="size"):
    metrics.fmr_of_fpir(0.1, 0)
  for bad in ((0.0, 1.0, 2), (0.5, 0.0, 2), (0.5, 0.1, 0)):
    with pytest.raises(ValueError, match="must"):
      intervals.rate_interval(*bad)


def test_the_smallest_supported_rate_is_the_last_that_is_taken():
  rng = np.random.default_rng(0)
  people = np.repeat(np.arange(40), 3)
  i, j = np.triu_indices(120, 1)
  scores, ends = rng.normal(size=len(i)), (people[i], people[j])
  least = thresholds.smallest_supported_fmr(scores, *ends)
  found = thresholds.supported_threshold_at_fmr(scores, *ends, least)
  assert found.person_pairs >= 30
  with pytest.raises(ValueError, match="not supported"):
    thresholds.supported_threshold_at_fmr(scores, *ends, 0.99 * least)
  few = people[i] % 20, people[j] % 20
  assert thresholds.smallest_supported_fmr(scores, *few) is None
