"""Properties of the samplers: each draw admissible, the same for any split."""

import functools

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from facesiam_jax import parallel, sampling
from properties import strategies

# Images a person; whose they are and in what order is drawn.
_TABLES = ((1, 2, 3, 4), (1, 1, 8))
_BATCH = 16
_SAMPLERS = {
  "pairs": functools.partial(sampling.pairs, num_pairs=_BATCH),
  "triplets": functools.partial(sampling.triplets, num_triplets=_BATCH),
  "epoch_pairs": functools.partial(
    sampling.epoch_pairs, step=3, num_pairs=_BATCH
  ),
  "class_balanced": functools.partial(
    sampling.class_balanced, num_images=_BATCH
  ),
  "people_times_images": functools.partial(
    sampling.people_times_images, num_people=2, images_per_person=8
  ),
}


def _draw_all(index, seed):
  key = jax.random.key(seed)
  return {name: draw(index, key) for name, draw in _SAMPLERS.items()}


_draw = strategies.jit(_draw_all)


@st.composite
def _tables(draw, tables=_TABLES):
  """Identity of each image: any numbers, in any order."""
  counts = draw(st.permutations(draw(st.sampled_from(tables))))
  people = draw(
    st.lists(
      st.integers(-(2**63), 2**63 - 1),
      min_size=len(counts),
      max_size=len(counts),
      unique=True,
    )
  )
  images = np.repeat(np.array(people, np.int64), counts)
  return images[draw(strategies.permutations(len(images)))]


_SEEDS = st.integers(0, 2**31 - 1)


@given(_tables(), _SEEDS)
def test_every_pair_is_of_two_images_and_says_whose(ids, seed):
  drawn = _draw(sampling.index_identities(ids), seed)
  for name in ("pairs", "epoch_pairs"):
    left, right, same = map(np.asarray, drawn[name])
    assert ((left >= 0) & (left < len(ids))).all()
    assert ((right >= 0) & (right < len(ids))).all()
    assert (left != right).all(), name
    assert ((ids[left] == ids[right]) == same).all(), name
    assert same.tolist() == [1, 0] * (_BATCH // 2)


@given(_tables(), _SEEDS)
def test_every_triplet_is_one(ids, seed):
  drawn = _draw(sampling.index_identities(ids), seed)["triplets"]
  anchors, positives, negatives = map(np.asarray, drawn)
  assert (anchors != positives).all()
  assert (ids[anchors] == ids[positives]).all()
  assert (ids[anchors] != ids[negatives]).all()


@given(_tables(), _SEEDS)
def test_people_times_images_are_different_as_far_as_there_are_any(ids, seed):
  drawn = _draw(sampling.index_identities(ids), seed)
  rows = np.asarray(drawn["people_times_images"]).reshape(2, 8)
  assert (ids[rows] == ids[rows[:, :1]]).all()
  assert ids[rows[0, 0]] != ids[rows[1, 0]]
  for person in rows:
    count = int((ids == ids[person[0]]).sum())
    assert len(set(person.tolist())) == min(8, count)
    # Repeated in turn: the first are all different.
    assert len(set(person[:count].tolist())) == min(8, count)
  balanced = np.asarray(drawn["class_balanced"])
  assert ((balanced >= 0) & (balanced < len(ids))).all()


@given(_tables())
def test_the_index_groups_the_images(ids):
  index = sampling.index_identities(ids)
  order, groups = np.asarray(index.order), np.asarray(index.groups)
  assert sorted(order) == list(range(len(ids)))
  assert (ids[order] == np.unique(ids)[groups]).all()
  assert (np.diff(groups) >= 0).all()
  assert index.max_count == np.unique(ids, return_counts=True)[1].max()


def _keep_own(index, seed):
  drawn = _draw_all(index, seed)
  rows = parallel.own_rows(_BATCH)
  return jax.tree.map(lambda whole: whole[rows], drawn)


@strategies.jit
def _draw_split(index, seed):
  """The draws of one, two and eight devices, each keeping its own rows.

  As a mapped axis of one program, which compiles once; sampling_test.py has
  the real devices.
  """
  return [
    jax.vmap(_keep_own, in_axes=None, axis_name=parallel.AXIS, axis_size=count)(
      index, seed
    )
    for count in (1, 2, 8)
  ]


@given(ids=_tables(_TABLES[:1]), seed=_SEEDS)
def test_any_split_of_the_batch_is_the_same_batch(ids, seed):
  index = sampling.index_identities(ids)
  whole = _draw(index, seed)
  for parts in _draw_split(index, seed):
    joined = jax.tree.map(lambda part: part.reshape(-1), parts)
    strategies.assert_same_bits(joined, whole)
