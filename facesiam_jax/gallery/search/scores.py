"""Scores of queries against a block of the gallery, in bits that stay."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from facesiam_jax.gallery.search.rows import TILE

METRICS = ("cosine", "dot", "euclidean")

Head = Callable[[jax.Array, jax.Array], jax.Array]
# Float32 [8 m, D] and [block, D] -> [8 m, block].
BlockScore = Callable[[jax.Array, jax.Array], jax.Array]

# Pairs whose embeddings a head sees at once: 8 queries against so many rows.
_HEAD_ROWS = 128


def positive_zero(scores: jax.Array) -> jax.Array:
  """Returns the scores with 0.0 for -0.0."""
  # top_k orders -0.0 below 0.0 on some backends, which would break ties.
  return jnp.where(scores == 0, 0.0, scores)


def products(queries: jax.Array, block: jax.Array) -> jax.Array:
  """Returns q.g, [Q, D] and [B, D] -> float32 [Q, B]."""
  return lax.dot_general(
    queries,
    block,
    (((1,), (1,)), ((), ())),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )


def product_distances(queries: jax.Array, block: jax.Array) -> jax.Array:
  """Returns 2 q.g - |g|^2, which is -|q - g|^2 but for |q|^2 and rounding."""
  norm_sq = jnp.sum(jnp.square(block), axis=-1)
  return 2.0 * products(queries, block) - norm_sq[None, :]


def tile_distances(queries: jax.Array, rows: jax.Array) -> jax.Array:
  """Returns -|q - g|^2, [8, D] and [8 or 1, N, D] -> [8, N], uncancelled."""
  # The barrier keeps the subtraction from being fused with whatever produced
  # the rows, so that both of its uses round alike.
  queries, rows = lax.optimization_barrier((queries, rows))
  return -jnp.sum(jnp.square(queries[:, None, :] - rows), axis=-1)


def _by_tiles(tile_score: BlockScore) -> BlockScore:
  def score(queries: jax.Array, block: jax.Array) -> jax.Array:
    tiles = queries.reshape(-1, TILE, queries.shape[1])
    scores = lax.map(lambda tile: tile_score(tile, block), tiles)
    return scores.reshape(queries.shape[0], block.shape[0])

  return score


# The differences themselves: exact to a relative error, and slower.
direct_distances = _by_tiles(
  lambda tile, block: tile_distances(tile, block[None])
)


def of_head(head: Head) -> BlockScore:
  """Returns the scores of a head: its logits, 8 x 128 pairs at a time.

  Args:
    head: embeddings [P, D] and [P, D] of pairs -> logits [P].

  Returns:
    A function of queries [8 m, D] and a block [B, D] -> float32 [8 m, B].
  """

  def pairs(queries: jax.Array, rows: jax.Array) -> jax.Array:
    shape = (queries.shape[0], *rows.shape)
    left = jnp.broadcast_to(queries[:, None], shape)
    right = jnp.broadcast_to(rows[None], shape)
    # One shape and nothing fused into it, so that a pair always rounds alike.
    left, right = lax.optimization_barrier((left, right))
    flat = lambda x: x.reshape(-1, x.shape[-1])
    logits = head(flat(left), flat(right))
    logits = lax.optimization_barrier(logits.astype(jnp.float32))
    return logits.reshape(shape[:2])

  def tile_score(tile: jax.Array, block: jax.Array) -> jax.Array:
    missing = -block.shape[0] % _HEAD_ROWS
    padded = jnp.pad(block, ((0, missing), (0, 0)), mode="edge")
    parts = padded.reshape(-1, _HEAD_ROWS, block.shape[1])
    scores = lax.map(lambda part: pairs(tile, part), parts)
    return scores.swapaxes(0, 1).reshape(TILE, -1)[:, : block.shape[0]]

  return _by_tiles(tile_score)


def block_score(metric: str | Head) -> BlockScore:
  """Returns the scores a metric ranks by, in the bits it reports."""
  if callable(metric):
    return of_head(metric)
  return direct_distances if metric == "euclidean" else products


def check_metric(metric: str | Head) -> None:
  """Raises ValueError unless it is one of METRICS or a function."""
  if not callable(metric) and metric not in METRICS:
    raise ValueError(
      f"metric must be one of {METRICS} or a head's function, got {metric!r}."
    )


def pair_cost(head: Head, dim: int) -> float:
  """Returns how many operations a head takes to compare two embeddings.

  Args:
    head: embeddings [P, D] and [P, D] of pairs -> logits [P].
    dim: D.

  Returns:
    Floating-point operations a pair, as XLA counts them (NaN where it does
    not); a product of embeddings takes 2 D.

  Example:
    >>> pair_cost(lambda x, y: (x * y).sum(axis=1), 64) >= 100
    True
  """
  pairs = jax.ShapeDtypeStruct((TILE * _HEAD_ROWS, dim), jnp.float32)
  cost = jax.jit(head).lower(pairs, pairs).cost_analysis() or {}
  return float(cost.get("flops", "nan")) / pairs.shape[0]
