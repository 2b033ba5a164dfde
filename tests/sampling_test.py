"""Tests of facesiam_jax.sampling: what is drawn, and how often."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from facesiam_jax import sampling

# Unequal people in mixed order; person 7 has one image.
IDS = np.array([3, 5, 3, 7, 5, 3, 9, 9, 9, 9, 3, 5], np.int32)


def _admissible():
  """All unordered pairs of image rows, by kind."""
  both = {0: [], 1: []}
  for i, j in itertools.combinations(range(len(IDS)), 2):
    both[int(IDS[i] == IDS[j])].append((i, j))
  return both


def _counts(draw, num_draws):
  """How often each unordered pair comes, by kind; checks the labels."""
  counts = {0: {}, 1: {}}
  keys = jax.random.split(jax.random.key(0), num_draws)
  drawn = jax.jit(jax.vmap(draw))(keys)
  rows = zip(*(np.asarray(x).reshape(-1) for x in drawn), strict=True)
  for left, right, same in rows:
    assert left != right
    assert same == (IDS[left] == IDS[right])
    pair = (min(left, right), max(left, right))
    counts[int(same)][pair] = counts[int(same)].get(pair, 0) + 1
  return counts


def test_every_admissible_pair_is_equally_likely():
  index = sampling.index_identities(IDS)
  draw = lambda key: sampling.pairs(index, key, num_pairs=64)
  counts = _counts(draw, 500)
  for kind, pairs in _admissible().items():
    observed = [counts[kind].get(pair, 0) for pair in pairs]
    assert sum(observed) == sum(counts[kind].values()) == 16000
    assert stats.chisquare(observed).pvalue > 1e-3


def test_the_statistical_test_rejects_anchor_first_sampling():
  """Anchors drawn evenly favour pairs of people with few images."""
  index = sampling.index_identities(IDS)
  everyone = index.paired

  def wrong(key):
    left_key, right_key = jax.random.split(key)
    left = jax.random.choice(left_key, everyone, (32,))
    right = sampling._genuine_partner(index, right_key, left)
    return index.order[left], index.order[right], np.ones(32, np.int32)

  counts = _counts(wrong, 500)
  observed = [counts[1].get(pair, 0) for pair in _admissible()[1]]
  assert stats.chisquare(observed).pvalue < 1e-6


@pytest.mark.parametrize("kind", ["pairs", "epoch_pairs"])
def test_half_is_genuine_and_single_images_are_impostors_only(kind):
  index = sampling.index_identities(IDS)
  for step in range(20):
    key = jax.random.key(step)
    if kind == "pairs":
      drawn = sampling.pairs(index, key, num_pairs=10)
    else:
      drawn = sampling.epoch_pairs(index, key, step, num_pairs=10)
    left, right, same = (np.asarray(x) for x in drawn)
    assert same.sum() == 5
    np.testing.assert_array_equal(same, IDS[left] == IDS[right])
    assert np.all(left != right)
    genuine = same == 1
    assert not np.any(IDS[left][genuine] == 7)


def test_an_epoch_gives_each_image_one_pair_of_each_kind():
  """12 images, 11 of them with a partner; batches straddle the epochs."""
  index = sampling.index_identities(IDS)
  genuine, impostor = [], []
  draw = jax.jit(
    lambda step: sampling.epoch_pairs(
      index, jax.random.key(3), step, num_pairs=10
    )
  )
  for step in range(5 * 12 * 11 // 5):
    left = np.asarray(draw(step).left)
    genuine.extend(left[0::2])
    impostor.extend(left[1::2])
  paired = np.flatnonzero(IDS != 7)
  orders = set()
  for e in range(len(genuine) // 11):
    epoch = genuine[11 * e : 11 * (e + 1)]
    assert sorted(epoch) == paired.tolist()
    orders.add(tuple(epoch))
  assert len(orders) > 10, "each epoch must have an order of its own"
  for e in range(len(impostor) // 12):
    assert sorted(impostor[12 * e : 12 * (e + 1)]) == list(range(12))


def test_an_epoch_smaller_than_the_batch():
  ids = np.array([0, 0, 1, 1], np.int32)
  index = sampling.index_identities(ids)
  drawn = sampling.epoch_pairs(index, jax.random.key(0), 1, num_pairs=24)
  left = np.asarray(drawn.left)
  assert np.bincount(left[0::2]).tolist() == [3, 3, 3, 3]


def test_people_times_images():
  index = sampling.index_identities(IDS)
  chosen_people = np.zeros(4)
  for step in range(200):
    rows = np.asarray(
      sampling.people_times_images(
        index, jax.random.key(step), num_people=3, images_per_person=4
      )
    ).reshape(3, 4)
    people = IDS[rows]
    assert np.all(people == people[:, :1])
    assert len(set(people[:, 0])) == 3
    for person, images in zip(people[:, 0], rows, strict=True):
      available = int(np.sum(person == IDS))
      # All different where there are enough, else each as often as fits.
      assert len(set(images)) == min(4, available)
      assert np.bincount(images).max() == -(-4 // available)
      chosen_people[np.searchsorted([3, 5, 7, 9], person)] += 1
  assert stats.chisquare(chosen_people).pvalue > 1e-3


def test_the_same_key_gives_the_same_batch():
  index = sampling.index_identities(IDS)
  draw = lambda key: sampling.pairs(index, key, num_pairs=10)
  first = draw(jax.random.key(1))
  for a, b in zip(first, jax.jit(draw)(jax.random.key(1)), strict=True):
    np.testing.assert_array_equal(a, b)
  other = draw(jax.random.key(2))
  assert np.any(np.asarray(first.left) != np.asarray(other.left))


@pytest.mark.parametrize(
  "ids, match",
  [
    (np.zeros(0, np.int32), "empty"),
    (np.zeros((2, 2), np.int32), "integers"),
    (np.zeros(3, np.float32), "integers"),
    (np.arange(70000), "int32"),
  ],
)
def test_bad_identities_are_refused(ids, match):
  with pytest.raises(ValueError, match=match):
    sampling.index_identities(ids)


def test_impossible_draws_are_refused():
  index = sampling.index_identities(IDS)
  key = jax.random.key(0)
  for call, match in (
    (lambda: sampling.pairs(index, key, num_pairs=7), "even"),
    (lambda: sampling.pairs(index, key, num_pairs=0), "even"),
    (
      lambda: sampling.pairs(
        sampling.index_identities(np.arange(4)), key, num_pairs=2
      ),
      "no person has two",
    ),
    (
      lambda: sampling.epoch_pairs(
        sampling.index_identities(np.zeros(4, int)), key, 0, num_pairs=2
      ),
      "one person",
    ),
    (
      lambda: sampling.people_times_images(
        index, key, num_people=5, images_per_person=2
      ),
      "num_people must be 1 to 4",
    ),
    (
      lambda: sampling.people_times_images(
        index, key, num_people=2, images_per_person=0
      ),
      "images_per_person",
    ),
  ):
    with pytest.raises(ValueError, match=match):
      call()
