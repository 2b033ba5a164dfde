"""Mistakes of block-wise mining and sums, and the tests that notice them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from mining_batches import assert_triplets, make_batch, make_embeddings
from mining_mistakes import local_rows, scaled, shared, with_option
from reference import mining as reference
from variants import Variants

from facesiam_jax import mining, ops


def _soft(p, n):
  """Neither symmetric nor linear, and different at (1, 1) from 0."""
  return jnp.log1p(jnp.exp(0.5 * (p - 0.7 * n)))


def _soft_reference(p, n):
  return np.log(1.0 + np.exp(0.5 * (p - 0.7 * n)))


def check_sum_over_triplets(function):
  for most in (3, 2):
    call = jax.jit(partial(function, _soft, max_positives=most))
    for seed in range(3):
      batch = make_batch(seed)
      sums, counts = call(
        batch.distances, batch.anchor_ids, batch.column_ids, **batch.labels()
      )
      expected = reference.sum_over_triplets(_soft_reference, batch, most)
      np.testing.assert_allclose(sums, expected[0], rtol=1e-5)
      np.testing.assert_array_equal(counts, expected[1])


def _mine_and_sum(matrix, anchor_ids, column_ids, **labels):
  """Indices and a loss at once, and what they were found among."""
  mined = mining.batch_hard(matrix, anchor_ids, column_ids, **labels)
  sums, counts = mining.sum_over_triplets(
    _soft, matrix, anchor_ids, column_ids, max_positives=3, **labels
  )
  return mined, sums, counts


def check_by_blocks(function):
  batch = make_batch(0)
  for seed, block_rows in ((0, 3), (1, 1), (2, 8), (3, 100)):
    anchors, columns = make_embeddings(seed, batch)
    distances = np.array(
      [[reference.distance(x, y) ** 2 for y in columns] for x in anchors]
    )
    call = partial(
      function, _mine_and_sum, **batch.labels(), block_rows=block_rows
    )
    mined, sums, counts = jax.jit(call)(
      anchors, batch.anchor_ids, columns, batch.column_ids
    )
    seen = batch._replace(distances=distances)
    assert_triplets(mined, reference.batch_hard(seen))
    expected = reference.sum_over_triplets(_soft_reference, seen, 3)
    np.testing.assert_allclose(sums, expected[0], rtol=1e-5)
    np.testing.assert_array_equal(counts, expected[1])


def _over_triplets(*, mean=False, unmasked=False, active=False):
  """The sum over triplets by a [b, B, B] array, with mistakes."""

  def function(f, x, anchor_ids, column_ids, *, max_positives, **labels):
    masks = mining.all_triplets(anchor_ids, column_ids, **labels)
    first = jnp.cumsum(masks.positives, axis=1) <= max_positives
    p = (masks.positives & first)[:, :, None]
    triplet = p & masks.negatives[:, None, :]
    shape = triplet.shape
    both = [
      jnp.where(triplet, jnp.broadcast_to(y, shape), 1.0)
      for y in (x[:, :, None], x[:, None, :])
    ]
    values = f(*both)
    counts = triplet.sum((1, 2)).astype(jnp.float32)
    if active:
      counts = (triplet & (both[0] > both[1])).sum((1, 2)).astype(jnp.float32)
    sums = jnp.where(triplet | unmasked, values, 0.0).sum((1, 2))
    return sums / jnp.maximum(counts, 1) if mean else sums, counts

  return function


def _roles_swapped(f, *args, **options):
  return mining.sum_over_triplets(lambda p, n: f(n, p), *args, **options)


def _in_blocks_of_columns(function, x, ids, columns, column_ids, **options):
  """Each block of anchors sees only as many columns as it has rows."""
  size = options["block_rows"]

  def cut(matrix, *args, column_weights, **labels):
    seen = jnp.where(jnp.arange(matrix.shape[1]) < size, column_weights, 0.0)
    return function(matrix, *args, column_weights=seen, **labels)

  return mining.by_blocks(cut, x, ids, columns, column_ids, **options)


def _plain_distance(x, y):
  return ops.safe_sqrt(ops.pairwise_squared_distance(x, y))


def _blocks_backwards(*args, **options):
  return jax.tree.map(lambda x: x[::-1], mining.by_blocks(*args, **options))


def _rows_of_the_block(function, *args, **options):
  """The function is told each anchor's place in its block."""
  wrong = local_rows(function)
  return mining.by_blocks(wrong, *args, **options)


_BLOCKS = mining.by_blocks
_SUM = mining.sum_over_triplets

VARIANTS = {
  "mining.sum_over_triplets": Variants(
    _SUM,
    check_sum_over_triplets,
    {
      **shared(_SUM),
      "positive and negative swapped": _roles_swapped,
      "mean for sum": _over_triplets(mean=True),
      "stand-ins are added": _over_triplets(unmasked=True),
      "active ones counted": _over_triplets(active=True),
      "one positive too many": scaled(_SUM, "max_positives", lambda m: m + 1),
    },
  ),
  "mining.by_blocks": Variants(
    _BLOCKS,
    check_by_blocks,
    {
      **shared(_BLOCKS),
      "blocks of columns": _in_blocks_of_columns,
      "plain for squared": with_option(_BLOCKS, compare=_plain_distance),
      "products for distances": with_option(_BLOCKS, compare=ops.pairwise_dot),
      "blocks backwards": _blocks_backwards,
      "rows of the block": _rows_of_the_block,
    },
  ),
}
