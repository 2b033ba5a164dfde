"""Tests of facesiam_jax.sampling beyond how often each thing is drawn.

The chi-square tests of the draws are in wrong/sampling.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sampling_chances import IDS, index

from facesiam_jax import parallel, sampling

_KEY = jax.random.key(1)
_STEP = 7
# name -> (index, key) -> arrays of the global batch of 16 rows
DRAWS = {
  "pairs": lambda found, key: sampling.pairs(found, key, num_pairs=16),
  "epoch_pairs": lambda found, key: sampling.epoch_pairs(
    found, key, _STEP, num_pairs=16
  ),
  "triplets": lambda found, key: sampling.triplets(found, key, num_triplets=16),
  "people_times_images": lambda found, key: sampling.people_times_images(
    found, key, num_people=4, images_per_person=4
  ),
  "class_balanced": lambda found, key: sampling.class_balanced(
    found, key, num_images=16
  ),
}


def _assert_same(first, second):
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    assert a.dtype == jnp.int32
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_any_number_of_devices_draws_the_same_global_batch(name, devices):
  """Each device keeps its own rows; side by side they are the batch."""
  whole = jax.jit(DRAWS[name])(index(), _KEY)
  spec = jax.sharding.PartitionSpec()

  def own(found, key):
    rows = parallel.own_rows(16)
    return jax.tree.map(lambda x: x[rows], DRAWS[name](found, key))

  # They share how they draw; each count costs seconds of compilation.
  for count in (1, 2, 4, 8) if name == "triplets" else (8,):
    mapped = parallel.pmap(
      own, parallel.make_mesh(devices[:count]), in_specs=(spec, spec)
    )
    _assert_same(whole, mapped(index(), _KEY))


@pytest.mark.parametrize("name", sorted(DRAWS))
def test_vmap_draws_what_single_calls_draw_and_keys_differ(name):
  keys = jax.random.split(_KEY, 3)
  together = jax.jit(jax.vmap(DRAWS[name], in_axes=(None, 0)))(index(), keys)
  single = jax.jit(DRAWS[name])
  for i in range(3):
    _assert_same(
      single(index(), keys[i]), jax.tree.map(lambda x, i=i: x[i], together)
    )
  first, other = (
    np.concatenate([np.ravel(x[i]) for x in jax.tree.leaves(together)])
    for i in (0, 1)
  )
  assert np.any(first != other)


@pytest.mark.parametrize(
  "weights",
  [[1], [5, 5, 5], [12, 6, 0, 12], [0, 0, 1], [1, 10**17, 3], [2, 1, 4, 8, 16]],
)
def test_alias_table_holds_the_exact_chances(weights):
  """Bin by bin, in whole numbers of 2^-32."""
  from facesiam_jax.sampling import identities

  people = identities._alias_table(weights)
  size, total = len(weights), sum(weights)
  found = [0] * size
  for bin_ in range(size):
    kept = int(people.thresholds[bin_])
    found[bin_] += kept
    found[int(people.aliases[bin_])] += 2**32 - kept
  for have, weight in zip(found, weights, strict=True):
    assert abs(have - size * 2**32 * weight / total) <= size
    assert weight or not have, "a person of weight 0 is never drawn"


def test_pairs_of_more_images_than_int32_counts_pairs_of():
  """70,000 images have 4.9e9 pairs and up to 3e14 triplets."""
  ids = np.repeat(np.arange(35000), 2)
  np.random.default_rng(0).shuffle(ids)
  found = sampling.index_identities(ids)
  drawn = sampling.pairs(found, _KEY, num_pairs=4096)
  left, right, same = (np.asarray(x) for x in drawn)
  np.testing.assert_array_equal(ids[left] == ids[right], same == 1)
  assert np.all(left != right)
  # An even draw of 4096 from 70,000 rows: mean 35,000, deviation 316.
  assert abs(left.mean() - 34999.5) < 1600
  assert len(set(left.tolist())) > 3700
  triplets = sampling.triplets(found, _KEY, num_triplets=4096)
  a, p, n = (ids[np.asarray(x)] for x in triplets)
  assert np.all(a == p) and np.all(a != n)
  assert np.all(triplets.anchors != triplets.positives)


def test_ids_may_be_any_integers_in_any_order():
  ids = np.array([2**40, -5, 2**40, -5, 0], np.int64)
  found = sampling.index_identities(ids)
  assert found.order.tolist() == [1, 3, 4, 0, 2]
  assert found.counts.tolist() == [2, 1, 2]
  assert found.groups.tolist() == [0, 0, 1, 2, 2]
  assert found.max_count == 2
  for dtype in (np.int8, np.uint16, np.int32):
    small = sampling.index_identities(np.array([1, 0, 1], dtype))
    assert small.order.tolist() == [1, 0, 2]


def test_an_epoch_smaller_than_the_batch():
  ids = np.array([0, 0, 1, 1], np.int32)
  found = sampling.index_identities(ids)
  drawn = sampling.epoch_pairs(found, jax.random.key(0), 1, num_pairs=24)
  left = np.asarray(drawn.left)
  assert np.bincount(left[0::2]).tolist() == [3, 3, 3, 3]


def test_epoch_pairs_by_number_or_by_traced_step():
  draw = functools.partial(sampling.epoch_pairs, index(), _KEY, num_pairs=10)
  _assert_same(draw(5), jax.jit(draw)(jnp.int32(5)))


@pytest.mark.parametrize("kind", ["triplets", "class_balanced"])
def test_a_batch_of_one(kind):
  if kind == "triplets":
    a, p, n = (
      int(x[0]) for x in sampling.triplets(index(), _KEY, num_triplets=1)
    )
    assert a != p and IDS[a] == IDS[p] and IDS[a] != IDS[n]
  else:
    rows = sampling.class_balanced(index(), _KEY, num_images=1)
    assert rows.shape == (1,) and 0 <= int(rows[0]) < len(IDS)


@pytest.mark.parametrize(
  "ids, match",
  [
    (np.zeros(0, np.int32), "empty"),
    (np.zeros((2, 2), np.int32), r"integers \[N\], got int32 \(2, 2\)"),
    (np.zeros(3, np.float32), "integers"),
    (np.broadcast_to(np.int32(0), (2**31,)), "2147483648 images are more"),
  ],
)
def test_bad_identities_are_refused(ids, match):
  with pytest.raises(ValueError, match=match):
    sampling.index_identities(ids)


def _everyone_alone():
  return sampling.index_identities(np.arange(4))


def _one_person():
  return sampling.index_identities(np.zeros(4, int))


@pytest.mark.parametrize(
  "call, match",
  [
    (lambda: sampling.pairs(index(), _KEY, num_pairs=7), "even .* got 7"),
    (lambda: sampling.pairs(index(), _KEY, num_pairs=0), "even .* got 0"),
    (
      lambda: sampling.epoch_pairs(index(), _KEY, 0, num_pairs=3),
      "even .* got 3",
    ),
    (
      lambda: sampling.pairs(_everyone_alone(), _KEY, num_pairs=2),
      "no person has two",
    ),
    (
      lambda: sampling.triplets(_everyone_alone(), _KEY, num_triplets=2),
      "no person has two",
    ),
    (
      lambda: sampling.epoch_pairs(_one_person(), _KEY, 0, num_pairs=2),
      "one person",
    ),
    (
      lambda: sampling.triplets(_one_person(), _KEY, num_triplets=2),
      "one person",
    ),
    (
      lambda: sampling.triplets(index(), _KEY, num_triplets=0),
      "triplets must be at least 1, got 0",
    ),
    (
      lambda: sampling.class_balanced(index(), _KEY, num_images=0),
      "images must be at least 1, got 0",
    ),
    (
      lambda: sampling.people_times_images(
        index(), _KEY, num_people=5, images_per_person=2
      ),
      "num_people must be 1 to 4",
    ),
    (
      lambda: sampling.people_times_images(
        index(), _KEY, num_people=2, images_per_person=0
      ),
      "images_per_person must be at least 1, got 0",
    ),
    (
      lambda: sampling.people_times_images(
        index(), _KEY, num_people=2, images_per_person=2, by_count=1.5
      ),
      r"by_count must be in \[0, 1\], got 1.5",
    ),
  ],
)
def test_impossible_draws_are_refused(call, match):
  with pytest.raises(ValueError, match=match):
    call()
