"""Tests of block-wise mining and of sums over all triplets."""

from functools import partial

import jax
import jax.numpy as jnp
import numeric
import numpy as np
import pytest
from mining_batches import Batch, make_batch, make_embeddings, run
from reference import mining as reference

from facesiam_jax import mining, ops

_KEY = jax.random.key(3)
_HINGE = lambda p, n: jnp.maximum(p - n + 0.5, 0.0)
_HINGE_SUM = partial(mining.sum_over_triplets, _HINGE, max_positives=3)
FUNCTIONS = {
  "batch_hard": mining.batch_hard,
  "semi_hard": partial(mining.semi_hard, max_positives=3),
  "easy_positive": mining.batch_easy_positive,
  "distance_weighted": partial(
    mining.distance_weighted, key=_KEY, dimension=4, max_positives=3
  ),
  "multi_similarity": mining.multi_similarity,
  "sum_over_triplets": _HINGE_SUM,
}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_blocks_give_the_indices_of_the_whole_matrix(name):
  """Small integers: distances are exact, and many of them equal."""
  batch = make_batch(0)
  anchors, columns = make_embeddings(5, batch)
  scale = 0.125 if name == "distance_weighted" else 1.0
  compare = lambda x, y: ops.safe_sqrt(ops.pairwise_squared_distance(x, y))
  kept = batch.column_weights > 0
  matrix = compare(scale * anchors, scale * np.where(kept[:, None], columns, 0))
  whole = jax.jit(FUNCTIONS[name])(
    matrix, batch.anchor_ids, batch.column_ids, **batch.labels()
  )
  blocks = jax.jit(
    partial(
      mining.by_blocks,
      FUNCTIONS[name],
      compare=compare,
      block_rows=3,
      **batch.labels(),
    )
  )(scale * anchors, batch.anchor_ids, scale * columns, batch.column_ids)
  for a, b in zip(whole, blocks, strict=True):
    if name == "sum_over_triplets":
      np.testing.assert_allclose(a, b, rtol=1e-6)
    else:
      np.testing.assert_array_equal(a, b)


def test_rows_of_random_floats_are_chosen_alike():
  """Blocks of another size may round otherwise; no index changes here."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(40, 8)).astype(np.float32)
  ids = rng.integers(0, 6, 40).astype(np.int32)
  rows = np.arange(40)
  whole = mining.batch_hard(
    ops.pairwise_squared_distance(x, x), ids, ids, anchor_rows=rows
  )
  for block_rows in (1, 7):
    blocks = mining.by_blocks(
      mining.batch_hard, x, ids, x, ids, anchor_rows=rows, block_rows=block_rows
    )
    for a, b in zip(whole, blocks, strict=True):
      np.testing.assert_array_equal(a, b)


def test_what_is_compared_has_zeros_for_padding():
  """So says the docstring; 1 would not do for a comparison of its own."""
  x = np.full((3, 2), 2.0, np.float32)
  x[1] = np.nan
  matrix = mining.by_blocks(
    lambda matrix, *args, **labels: matrix,
    x,
    np.zeros(3, np.int32),
    x,
    np.zeros(3, np.int32),
    anchor_rows=np.arange(3),
    column_weights=np.array([1, 0, 1], np.float32),
    compare=lambda x, y: x @ y.T,
    block_rows=2,
  )
  assert matrix.tolist() == [[8, 0, 8], [0, 0, 0], [8, 0, 8]]


def test_a_function_need_only_be_finite_at_one():
  """Its poles at 0 and 2 are nowhere met, and reach no gradient."""
  batch = make_batch(0, values=lambda rng, s: rng.uniform(3, 4, s))
  bend = lambda x: 1 / (x * (2 - x))
  total = lambda d: jnp.sum(
    mining.sum_over_triplets(
      lambda p, n: bend(p) + bend(n), d, batch.anchor_ids, batch.column_ids,
      max_positives=3, **batch.labels(),
    )[0]
  )  # fmt: skip
  assert np.all(np.isfinite(jax.jit(jax.grad(total))(batch.distances)))


def _all_triplets_terms(own, rows, columns, ids, weights, block_rows=3):
  sums, counts = mining.by_blocks(
    _HINGE_SUM,
    own,
    ids[rows],
    columns,
    ids,
    anchor_rows=rows,
    column_weights=weights,
    block_rows=block_rows,
  )
  live = counts > 0
  return jnp.where(live, sums / jnp.maximum(counts, 1), 0.0), live * 1.0


_IDS = np.array([1, 2, 1, 2, 2, 3, 1, 1], np.int32)
_WEIGHTS = np.array([1, 1, 1, 1, 0, 1, 1, 1], np.float32)


def _reference_mean(x):
  distances = np.array([[reference.distance(a, b) ** 2 for b in x] for a in x])
  batch = Batch(distances, _IDS, _IDS, np.arange(8), _WEIGHTS)
  sums, counts = reference.sum_over_triplets(
    lambda p, n: max(p - n + 0.5, 0.0), batch, 3
  )
  return np.mean([s / c for s, c in zip(sums, counts, strict=True) if c])


def test_gradient_over_all_triplets_on_any_number_of_devices(devices):
  x = 0.5 * np.random.default_rng(2).normal(size=(8, 3))
  expected = numeric.gradient(_reference_mean, x)
  padded = x.astype(np.float32)
  padded[4] = np.nan
  for count in (1, 2, 4, 8):
    value, gradient = numeric.over_devices(
      _all_triplets_terms,
      padded,
      jnp.asarray(_IDS),
      jnp.asarray(_WEIGHTS),
      devices=devices[:count],
    )
    np.testing.assert_allclose(value, _reference_mean(x), rtol=1e-5)
    numeric.assert_gradients_close(gradient, expected)
    np.testing.assert_array_equal(gradient[4], 0)
    if count == 1:
      first = value, gradient
    np.testing.assert_allclose(value, first[0], rtol=1e-6)
    numeric.assert_gradients_close(gradient, first[1], rtol=1e-5)


@pytest.mark.parametrize("case", ["no triplet", "all padding", "duplicates"])
def test_degenerate_batches_are_finite(case):
  ids = np.arange(8) if case == "no triplet" else _IDS
  weights = np.zeros(8) if case == "all padding" else _WEIGHTS
  x = np.full((8, 3), np.nan if case == "all padding" else 1.0, np.float32)
  loss = lambda x: numeric.mean(
    _all_triplets_terms(x, jnp.arange(8), x, jnp.asarray(ids), weights)
  )
  value, gradient = jax.jit(jax.value_and_grad(loss))(x)
  np.testing.assert_allclose(value, 0.5 if case == "duplicates" else 0.0)
  # Duplicates pull on each other equally: the sum cancels up to rounding.
  np.testing.assert_allclose(gradient, 0, atol=1e-7)


def test_nan_that_counts_reaches_the_sum():
  batch = make_batch(0)
  batch.distances[1, 5] = np.nan
  sums, _ = run(_HINGE_SUM, batch)
  nan = np.isnan(sums)
  assert nan[1] and nan.sum() == 1


def test_vmap_and_bfloat16():
  batch = make_batch(0)
  low = jnp.asarray(batch.distances).astype(jnp.bfloat16)
  call = lambda d: _HINGE_SUM(
    d, batch.anchor_ids, batch.column_ids, **batch.labels()
  )
  together = jax.jit(jax.vmap(call))(jnp.stack([low, low + 1]))
  single = jax.jit(call)(low.astype(jnp.float32))
  for a, b in zip(single, together, strict=True):
    assert b.dtype == jnp.float32
    np.testing.assert_allclose(a, b[0], rtol=1e-6)


def _mined_loss(miner, x, ids, rows):
  fixed = jax.lax.stop_gradient(x)
  mined = mining.by_blocks(miner, fixed, ids, fixed, ids, anchor_rows=rows)
  gap = ops.squared_distance(x, x[mined.positives]) - ops.squared_distance(
    x, x[mined.negatives]
  )
  return ops.masked_mean(jnp.maximum(gap + 0.2, 0.0), mined.weights)


def _all_loss(x, ids, rows):
  sums, counts = mining.by_blocks(_HINGE_SUM, x, ids, x, ids, anchor_rows=rows)
  return jnp.sum(sums) / jnp.maximum(jnp.sum(counts), 1.0)


@pytest.mark.parametrize(
  "name, loss",
  [
    ("batch_hard", partial(_mined_loss, mining.batch_hard)),
    ("easy_positive", partial(_mined_loss, mining.batch_easy_positive)),
    ("all_triplets", _all_loss),
  ],
)
def test_a_batch_of_32768_needs_no_full_matrix(name, loss):
  """B x B floats are 4 GiB; value and gradient take a block's worth."""
  rows = jax.ShapeDtypeStruct((32768,), jnp.int32)
  x = jax.ShapeDtypeStruct((32768, 16), jnp.float32)
  memory = (
    jax.jit(jax.value_and_grad(loss))
    .lower(x, rows, rows)
    .compile()
    .memory_analysis()
  )
  assert memory.temp_size_in_bytes < 256 * 2**20
  dense = jax.eval_shape(ops.pairwise_squared_distance, x, x)
  assert dense.size * 4 > 16 * memory.temp_size_in_bytes


_THREE = np.array([0, 0, 1], np.int32)
_X = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
  "changes, match",
  [
    ({"block_rows": 0}, "block_rows must be at least 1, got 0"),
    ({"anchors": _X[0]}, r"anchors must be floating point \[n, D\].*\(2,\)"),
    ({"columns": _X.astype(int)}, "columns must be floating point .* int"),
    ({"anchors": _X[:2]}, r"one embedding for each id, got \(2, 2\) for \(3,"),
    ({"columns": _X[:, :1]}, r"same width, got \(3, 2\) and \(3, 1\)"),
    ({"anchors": _X[:, :0]}, r"one embedding for each id, got \(3, 0\)"),
    ({"anchor_rows": np.array([0, 1, 3])}, "anchor_rows must be from -1 to 2"),
    ({"function": lambda d, *a, **k: d.sum()}, "first axis 3"),
    ({"function": lambda d, *a, **k: d[:2, 0]}, r"got shape \(2,\)"),
  ],
)
def test_bad_input_is_refused(changes, match):
  call = {
    "function": mining.batch_hard,
    "anchors": _X,
    "anchor_ids": _THREE,
    "columns": _X,
    "column_ids": _THREE,
    "anchor_rows": np.arange(3),
  } | changes
  with pytest.raises(ValueError, match=match):
    mining.by_blocks(**call)


def test_max_positives_is_checked():
  with pytest.raises(ValueError, match="max_positives must be from 1 to 3"):
    mining.sum_over_triplets(
      _HINGE, np.ones((3, 3), np.float32), _THREE, _THREE,
      anchor_rows=np.arange(3), max_positives=0,
    )  # fmt: skip
