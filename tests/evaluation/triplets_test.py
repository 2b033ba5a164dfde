"""Tests of the triplet accuracy of a similarity matrix."""

import doctest

import numpy as np
import pytest

from facesiam_jax import metrics
from facesiam_jax.evaluation import triplets


def _case(num_people=6, seed=0, signal=1.0):
  """People with one to four images, in no order; scores with ties."""
  rng = np.random.default_rng(seed)
  sizes = 1 + np.arange(num_people) % 4
  ids = rng.permutation(np.repeat(10 * np.arange(num_people) + 3, sizes))
  scores = rng.integers(-3, 4, (ids.size, ids.size)).astype(np.float64)
  scores += scores.T + 4 * signal * (ids[:, None] == ids[None, :])
  return scores, ids


def _loop(scores, ids):
  """(people of anchor and negative, whether right) of every triplet."""
  found = []
  for a, p in np.argwhere(ids[:, None] == ids[None, :]):
    for n in np.flatnonzero(ids != ids[a]):
      if a != p:
        found.append((ids[a], ids[n], scores[a, p], scores[a, n]))
  return found


def test_docstring_example():
  result = doctest.testmod(triplets)
  assert result.attempted and not result.failed


def test_counts_equal_a_loop():
  scores, ids = _case()
  counts = triplets.count_triplets(scores, ids)
  people = sorted(set(ids.tolist()))
  right, total = np.zeros((2, 6, 6))
  listed = _loop(scores, ids)
  for anchor, negative, near, far in listed:
    place = people.index(anchor), people.index(negative)
    right[place] += near > far
    total[place] += 1
  np.testing.assert_array_equal(counts.right, right)
  np.testing.assert_array_equal(counts.all, total)
  assert any(near == far for _, _, near, far in listed), "ties are in it"
  near, far = np.array([(n, f) for _, _, n, f in listed]).T
  assert counts.accuracy == metrics.triplet_accuracy(-near, -far)
  assert 0.6 < counts.accuracy < 0.95


def test_the_diagonal_and_the_order_of_images_do_not_matter():
  scores, ids = _case()
  expected = triplets.count_triplets(scores, ids)
  order = np.random.default_rng(1).permutation(ids.size)
  moved = scores[np.ix_(order, order)]
  np.fill_diagonal(moved, -1e9)
  found = triplets.count_triplets(moved, ids[order])
  np.testing.assert_array_equal(found.right, expected.right)


def test_resamples_are_people_drawn_with_replacement():
  """One resample against images copied out one by one."""
  scores, ids = _case()
  counts = triplets.count_triplets(scores, ids)
  found = triplets.triplet_interval(counts, resamples=1, seed=4)
  people = np.unique(ids)
  drawn = people[np.random.default_rng(4).integers(0, 6, (1, 6))[0]]
  assert len(set(drawn)) < 6
  # Copies keep their person's id, and triplets go within one copy of the
  # anchor's images; so copies count as often as they are drawn.
  times = {person: int(np.sum(drawn == person)) for person in people}
  right = total = 0
  for anchor, negative, near, far in _loop(scores, ids):
    weight = times[anchor] * times[negative]
    right += weight * (near > far)
    total += weight
  assert found == pytest.approx([right / total] * 2)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
  """Scores of people with a likeness of their own, forty of them."""
  hits = 0
  truth = _population(600, 0).accuracy
  for seed in range(1, 61):
    low, high = triplets.triplet_interval(
      _population(40, seed), resamples=200, seed=seed
    )
    hits += low <= truth <= high
  # Of 60 at 95 %: below 50 with a chance of one in ten thousand.
  assert 50 <= hits


def _population(num_people, seed):
  """Two images a person; how alike they are is the person's own."""
  rng = np.random.default_rng(seed)
  ids = np.repeat(np.arange(num_people), 2)
  scores = rng.normal(size=(ids.size, ids.size))
  own = np.repeat(rng.normal(1.5, 1.0, num_people), 2)
  scores += own[:, None] * (ids[:, None] == ids[None, :])
  return triplets.count_triplets(scores, ids)


def test_no_error_seen_has_the_rule_of_three():
  scores, ids = _case(num_people=40, signal=100.0)
  counts = triplets.count_triplets(scores, ids)
  assert counts.accuracy == 1.0
  expected = [1 + np.log(0.05) / 40, 1.0]
  assert triplets.triplet_interval(counts) == pytest.approx(expected)


def test_equal_scores_are_wrong_and_no_triplet_is_refused():
  _, ids = _case()
  assert triplets.count_triplets(np.ones((13, 13)), ids).accuracy == 0.0
  for wrong in (np.zeros(13, int), np.arange(13)):
    with pytest.raises(ValueError, match="no person has two images"):
      triplets.count_triplets(np.ones((13, 13)), wrong)
  with pytest.raises(ValueError, match=r"\[N, N\] .* got \(13, 12\)"):
    triplets.count_triplets(np.ones((13, 12)), ids)
