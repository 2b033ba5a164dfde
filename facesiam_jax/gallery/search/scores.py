"""Scores of queries against rows of the gallery, rough or in bits that stay."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from facesiam_jax.gallery.search.rows import TILE

METRICS = ("cosine", "dot", "euclidean")

Head = Callable[[jax.Array, jax.Array], jax.Array]
# Queries [Q, D] and rows [B, D], float32 -> [B, Q].
BlockScore = Callable[[jax.Array, jax.Array], jax.Array]
# Float32 [8, 1, D] and [8, C, D] -> [8, C], pair by pair.
_PairScore = Callable[[jax.Array, jax.Array], jax.Array]

# Rows that eight queries meet at once where each pair is scored for itself.
_ROWS, _HEAD_ROWS = 32, 128


def positive_zero(scores: jax.Array) -> jax.Array:
  """Returns the scores with 0.0 for -0.0."""
  # top_k orders -0.0 below 0.0 on some backends, which would break ties.
  return jnp.where(scores == 0, 0.0, scores)


def products(queries: jax.Array, rows: jax.Array) -> jax.Array:
  """Returns q.g, [Q, D] and [B, D] -> float32 [B, Q].

  By one matrix product: its last bits depend on Q and B.
  """
  # The rows first, which is twice as fast where queries are few.
  return lax.dot_general(
    rows,
    queries,
    (((1,), (1,)), ((), ())),
    precision=lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )


def product_distances(queries: jax.Array, rows: jax.Array) -> jax.Array:
  """Returns 2 q.g - |g|^2, which is -|q - g|^2 but for |q|^2 and rounding."""
  norm_sq = jnp.sum(jnp.square(rows), axis=-1)
  return 2.0 * products(queries, rows) - norm_sq[:, None]


def rough_score(metric: str) -> BlockScore:
  """Returns what finds candidates for one of METRICS, in one product."""
  return product_distances if metric == "euclidean" else products


def _pair_products(queries: jax.Array, rows: jax.Array) -> jax.Array:
  return jnp.sum(queries * rows, axis=-1)


def _pair_distances(queries: jax.Array, rows: jax.Array) -> jax.Array:
  return -jnp.sum(jnp.square(queries - rows), axis=-1)


def _of_head(head: Head) -> _PairScore:
  def score(queries: jax.Array, rows: jax.Array) -> jax.Array:
    flat = lambda x: x.reshape(-1, x.shape[-1])
    logits = head(flat(jnp.broadcast_to(queries, rows.shape)), flat(rows))
    return logits.astype(jnp.float32).reshape(rows.shape[:2])

  return score


def exact_scores(
  metric: str | Head,
  queries: jax.Array,
  gallery: jax.Array,
  places: jax.Array,
) -> jax.Array:
  """Scores eight queries against rows of a gallery, each pair for itself.

  A pair's bits are the same wherever it stands and whatever stands beside it:
  every call is of one shape, and nothing is fused into it.

  Args:
    metric: one of METRICS or a head.
    queries: float32 [8, D].
    gallery: float32 [G, D].
    places: in the gallery, of each query's rows, int32 [8, C], or of those of
      all, [1, C].

  Returns:
    Scores, float32 [8, C].
  """
  score: _PairScore = _pair_products
  size = _ROWS
  if callable(metric):
    score, size = _of_head(metric), _HEAD_ROWS
  elif metric == "euclidean":
    score = _pair_distances
  count = places.shape[1]
  padded = jnp.pad(places, ((0, 0), (0, -count % size)), mode="edge")

  def part_scores(places: jax.Array) -> jax.Array:
    rows = jnp.broadcast_to(gallery[places], (TILE, size, gallery.shape[1]))
    pair = lax.optimization_barrier((queries[:, None], rows))
    return lax.optimization_barrier(score(*pair))

  parts = padded.reshape(places.shape[0], -1, size).swapaxes(0, 1)
  scores = lax.map(part_scores, parts)
  return scores.swapaxes(0, 1).reshape(TILE, -1)[:, :count]


def exact_score(metric: str | Head) -> BlockScore:
  """Returns the scores a metric ranks by, in the bits it reports."""

  def score(queries: jax.Array, rows: jax.Array) -> jax.Array:
    every = jnp.arange(rows.shape[0], dtype=jnp.int32)[None]
    tiles = queries.reshape(-1, TILE, queries.shape[1])
    scores = lax.map(lambda x: exact_scores(metric, x, rows, every), tiles)
    return scores.reshape(queries.shape[0], rows.shape[0]).T

  return score


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
