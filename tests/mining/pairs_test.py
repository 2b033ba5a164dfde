"""Tests of the masks of all triplets and of multi-similarity pairs."""

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mining_batches import make_batch, run

from facesiam_jax import mining


def _similar(seed):
  return make_batch(seed, values=lambda rng, s: rng.uniform(-1, 1, s))


def test_anchor_blocks_give_rows_of_the_whole_masks():
  batch = make_batch(0)
  whole = mining.all_triplets(
    batch.anchor_ids, batch.column_ids, **batch.labels()
  )
  for rows in (slice(0, 3), slice(3, 8)):
    part = mining.all_triplets(
      batch.anchor_ids[rows],
      batch.column_ids,
      anchor_rows=batch.anchor_rows[rows],
      column_weights=batch.column_weights,
    )
    np.testing.assert_array_equal(part.positives, whole.positives[rows])
    np.testing.assert_array_equal(part.negatives, whole.negatives[rows])


def test_masks_share_nothing_and_leave_out_only_self_and_padding():
  batch = make_batch(0)
  masks = mining.all_triplets(
    batch.anchor_ids, batch.column_ids, **batch.labels()
  )
  assert not np.any(masks.positives & masks.negatives)
  either = np.asarray(masks.positives | masks.negatives)
  for a, row in enumerate(batch.anchor_rows):
    expected = batch.column_weights > 0
    if row >= 0:
      expected = expected & expected[row]
      expected[row] = False
    np.testing.assert_array_equal(either[a], expected)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 10.0])
def test_epsilon_widens_the_choice_up_to_all_pairs(epsilon):
  batch = _similar(1)
  kept = run(mining.multi_similarity, batch, epsilon=epsilon)
  wider = run(mining.multi_similarity, batch, epsilon=epsilon + 0.05)
  every = mining.all_triplets(
    batch.anchor_ids, batch.column_ids, **batch.labels()
  )
  for a, b, c in zip(kept, wider, every, strict=True):
    assert np.all(a <= b) and np.all(b <= c)
  if epsilon == 10.0:
    both = every.positives.any(1) & every.negatives.any(1)
    np.testing.assert_array_equal(
      kept.positives, every.positives & both[:, None]
    )


def test_a_pair_exactly_at_the_limit_is_easy():
  """Positives at 0.5 and 1, negatives at 0.25 and 0.75; all sums are exact."""
  ids = np.array([7, 7, 7, 8, 8], np.int32)
  kept = mining.multi_similarity(
    np.array([[1.0, 0.5, 1.0, 0.25, 0.75]], np.float32),
    ids[:1],
    ids,
    anchor_rows=np.array([0]),
    epsilon=0.25,
  )
  assert kept.positives.astype(int).tolist() == [[0, 1, 0, 0, 0]]
  assert kept.negatives.astype(int).tolist() == [[0, 0, 0, 0, 1]]


@pytest.mark.parametrize(
  "ids, weights",
  [
    ([0, 0, 0], [1, 1, 1]),
    ([0, 1, 2], [1, 1, 1]),
    ([0, 0, 1], [0, 0, 0]),
    ([0, 0, 1], [1, 0, 1]),
  ],
)
def test_an_anchor_without_both_kinds_keeps_nothing(ids, weights):
  similarities = np.full((3, 3), 0.5, np.float32)
  similarities[:, np.array(weights) == 0] = np.nan
  kept = mining.multi_similarity(
    similarities,
    np.array(ids, np.int32),
    np.array(ids, np.int32),
    anchor_rows=np.arange(3),
    column_weights=np.array(weights, np.float32),
  )
  assert not np.any(kept.positives) and not np.any(kept.negatives)


def test_nan_that_counts_is_kept():
  ids = np.array([0, 0, 0, 1, 1], np.int32)
  for column in (1, 4):
    similarities = np.array([[1.0, 0.9, 0.9, -0.9, -0.9]], np.float32)
    similarities[0, column] = np.nan
    kept = mining.multi_similarity(
      similarities, ids[:1], ids, anchor_rows=np.array([0])
    )
    either = np.asarray(kept.positives | kept.negatives)[0]
    assert either[column]
    other = kept.negatives if column == 1 else kept.positives
    assert np.asarray(other)[0].sum() == 2


def test_plain_jit_and_vmap_agree_and_bfloat16_is_cast_up():
  # So close together that rounding to bfloat16 changes what is kept.
  close = lambda rng, shape: rng.uniform(0.5, 0.52, shape)
  batches = [make_batch(s, values=close) for s in range(2)]
  first = batches[0]
  call = lambda s: mining.multi_similarity(
    s, first.anchor_ids, first.column_ids, epsilon=0.0, **first.labels()
  )
  stacked = np.stack([b.distances for b in batches])
  together = jax.jit(jax.vmap(call))(stacked)
  for a, b in zip(call(first.distances), together, strict=True):
    np.testing.assert_array_equal(a, b[0])
  low = jnp.asarray(first.distances).astype(jnp.bfloat16)
  full = call(low.astype(jnp.float32))
  for a, b in zip(call(low), full, strict=True):
    np.testing.assert_array_equal(a, b)
  assert np.any(np.asarray(full.negatives) != together.negatives[0])


_THREE = np.array([0, 0, 1], np.int32)


@pytest.mark.parametrize(
  "call, match",
  [
    (
      partial(mining.all_triplets, _THREE[:0], _THREE, anchor_rows=_THREE[:0]),
      "anchor_ids is empty",
    ),
    (
      partial(mining.all_triplets, _THREE, _THREE[None], anchor_rows=_THREE),
      "column_ids must be integers",
    ),
    (
      partial(mining.all_triplets, _THREE, _THREE, anchor_rows=_THREE - 2),
      "anchor_rows must be from -1 to 2, got -2 to -1",
    ),
    (
      partial(
        mining.multi_similarity,
        np.ones((3, 2), np.float32),
        _THREE,
        _THREE,
        anchor_rows=_THREE,
      ),
      r"similarities must be \[anchors, columns\], got \(3, 2\)",
    ),
    (
      partial(
        mining.multi_similarity,
        np.ones((3, 3), np.float32),
        _THREE,
        _THREE,
        anchor_rows=_THREE,
        epsilon=-0.1,
      ),
      "epsilon must not be negative, got -0.1",
    ),
  ],
)
def test_bad_input_is_refused(call, match):
  with pytest.raises(ValueError, match=match):
    call()


@pytest.mark.parametrize(
  "function, defaults",
  [
    (
      mining.batch_easy_positive,
      {"negative": "semi_hard", "margin": 0.2, "fallback": "farthest"},
    ),
    (mining.by_blocks, {"block_rows": 256}),
    (
      mining.distance_weighted,
      {"cutoff": 0.5, "max_distance": 1.4, "positive": "every"},
    ),
    (mining.multi_similarity, {"epsilon": 0.1}),
    (
      mining.semi_hard,
      {"margin": 0.2, "positive": "every", "fallback": "farthest"},
    ),
  ],
)
def test_what_is_taken_where_nothing_is_given(function, defaults):
  arguments = inspect.signature(function).parameters
  assert {name: arguments[name].default for name in defaults} == defaults
