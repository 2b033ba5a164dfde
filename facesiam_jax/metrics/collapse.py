"""Collapse: whether embeddings have fallen onto one point or one line."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike


class Collapse(NamedTuple):
  """How far the embeddings of a batch are apart, float32 scalars.

  Attributes:
    spread: root mean square distance from the mean, divided by the root mean
      square length, 0..1: 0 = all at one point, 1 = around the origin. For
      rows of unit length it is sqrt(1 - |mean|^2).
    distance: root mean square distance between two different rows, in the
      unit of the embeddings.
    effective_rank: number of directions that share the variance, from 1 (all
      on one line) to min(rows - 1, D); 0 where there is no variance. It is
      tr(C)^2 / tr(C^2) of the covariance C.
    num_rows: rows that count.
  """

  spread: jax.Array
  distance: jax.Array
  effective_rank: jax.Array
  num_rows: jax.Array


def _scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns x / max|x| and max|x|, so that squares stay inside float32."""
  largest = jnp.max(jnp.abs(x))
  return x / jnp.where(largest == 0, 1.0, largest), largest


def _share(part: jax.Array, whole: jax.Array) -> jax.Array:
  """Returns part / whole, and 0 for 0 / 0; NaN stays NaN."""
  empty = whole == 0
  return jnp.where(empty, 0.0, part / jnp.where(empty, 1.0, whole))


def collapse_statistics(
  embeddings: ArrayLike, weights: ArrayLike | None = None
) -> Collapse:
  """Measures how far the embeddings of a batch are apart.

  Costs one product [D, B] x [B, D] (or [B, D] x [D, B], if that is smaller)
  and no B x B distances. Pass what the loss compares: rows scaled to unit
  length, if it takes cosines or distances of those. Their length hides a
  collapse of their directions.
  Batch meaning: uses all rows of the *global* batch: pass the all-gathered
  columns, and every device gets the same figures.

  Args:
    embeddings: float [B, D], any length from 1e-30 to 1e30.
    weights: 0 = padding, float [B]; None means all ones.

  Returns:
    The statistics, float32 scalars.

  Raises:
    ValueError: if embeddings are not floating point [B, D] with B, D >= 1, or
      the weights are not [B].

  Degenerate input: with fewer than two rows that count, or all alike, spread,
  distance and rank are 0 (`is_collapsed` looks at num_rows). NaN in a row of
  padding has no influence; in one that counts it makes all but num_rows NaN.
  Example:
    >>> x = jnp.array([[3.0, 4.0], [3.0, 4.0], [-3.0, -4.0], [-3.0, -4.0]])
    >>> [round(float(value), 4) for value in collapse_statistics(x)]
    [1.0, 8.165, 1.0, 4.0]

  References: the rank is the participation ratio of the covariance's
    eigenvalues.
  """
  x = jnp.asarray(embeddings)
  if x.ndim != 2 or not x.size or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      f"embeddings must be floating point [B, D] with B, D >= 1, got "
      f"{x.dtype} {x.shape}."
    )
  valid = jnp.ones(x.shape[:1], bool)
  if weights is not None:
    if jnp.shape(weights) != x.shape[:1]:
      raise ValueError(
        f"weights must hold one weight for each row, got {jnp.shape(weights)} "
        f"for {x.shape}."
      )
    valid = jnp.asarray(weights) > 0
  num_rows = jnp.sum(valid).astype(jnp.float32)
  rows = jnp.maximum(num_rows, 1.0)
  x, unit = _scaled(jnp.where(valid[:, None], x.astype(jnp.float32), 0.0))
  mean_sq = jnp.sum(jnp.square(x)) / rows
  mean = jnp.sum(x, axis=0, keepdims=True) / rows
  centred = jnp.where(valid[:, None], x - mean, 0.0)
  variance = jnp.sum(jnp.square(centred)) / rows
  pairs_sq = 2.0 * variance * rows / jnp.maximum(rows - 1.0, 1.0)
  return Collapse(
    spread=jnp.sqrt(_share(variance, mean_sq)),
    distance=unit * jnp.sqrt(pairs_sq),
    effective_rank=_participation_ratio(centred),
    num_rows=num_rows,
  )


def _participation_ratio(centred: jax.Array) -> jax.Array:
  """Returns tr(C)^2 / tr(C^2) of the scatter matrix of centred rows."""
  x, _ = _scaled(centred)
  if x.shape[0] < x.shape[1]:
    x = x.T
  # X^T X and X X^T have the same trace and the same sum of squares.
  scatter = jnp.matmul(x.T, x, precision=lax.Precision.HIGHEST)
  return _share(jnp.square(jnp.trace(scatter)), jnp.sum(jnp.square(scatter)))


def is_collapsed(
  spread: float,
  *,
  distance: float | None = None,
  margin: float | None = None,
  threshold: float = 0.05,
) -> bool:
  """Says whether a batch has collapsed; runs on the host.

  A triplet loss then rests at its margin, or at ln 2 with a soft margin, and
  its gradient fades: with squared distances for good, with plain ones a run
  may come back after a hundred steps. So it is a reason to warn, and to try a
  lower learning rate, plain instead of squared distances or semi-hard
  negatives, not to stop.

  Args:
    spread: of `collapse_statistics`, of a batch or a mean over some; 0..1.
    distance: of the same, in plain Euclidean distance; only with `margin`.
    margin: the distance a loss asks for where embeddings are not scaled to
      unit length: a plain margin, or the square root of a squared one. A
      batch is collapsed too where `distance` is below threshold * margin.
    threshold: 0..1. Two small networks on Olivetti faces, batches of 64,
      eight losses: what learned without a halt stayed above 0.11 on its way;
      what collapsed without dropout was below 0.02 by the tenth step, or at
      0.01 and less after 150. Dropout keeps rows apart: 0.026 after 200
      steps, and one slow collapse was still at 0.063. The loss alone tells
      less: one that learned came within 2 % of its margin too.

  Returns:
    True if the embeddings are as good as one point.

  Raises:
    ValueError: if a value is NaN or negative, the threshold is not from 0 to
      1, or only one of distance and margin is given.

  Degenerate input: one row alone has spread 0 and counts as collapsed: do not
  ask about fewer than two.
  Example:
    >>> is_collapsed(0.004), is_collapsed(0.3)
    (True, False)

  References: Hermans et al. 2017, In Defense of the Triplet Loss, appendix,
    on losses that stay at the margin.
  """
  given = {"spread": spread, "threshold": threshold}
  if (distance is None) != (margin is None):
    raise ValueError(
      f"distance and margin go together, got {distance} and {margin}."
    )
  if distance is not None and margin is not None:
    given |= {"distance": distance, "margin": margin}
  for name, value in given.items():
    if not value >= 0:
      raise ValueError(f"{name} must be a number from 0 up, got {value}.")
  if threshold > 1:
    raise ValueError(f"threshold must be from 0 to 1, got {threshold}.")
  near = (
    distance is not None
    and margin is not None
    and (distance < threshold * margin)
  )
  return bool(spread < threshold or near)
