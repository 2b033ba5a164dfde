"""Losses of single pairs: binary cross-entropy, contrastive, margin.

Label convention, here and everywhere: `same` = 1 for two images of the same
person, 0 for two people. (Hadsell et al. 2006 have it the other way round.)
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax.losses import _checks


def _prepare(
  name: str, x: ArrayLike, same: ArrayLike, weights: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  rows = _checks.floats(name, x, 1)
  row_weights = _checks.weights("weights", weights, name, rows)
  labels = jnp.asarray(same).astype(jnp.float32)
  _checks.like("same", labels, name, rows)
  given = _checks.known(same)
  used = _checks.known(row_weights)
  if given is not None and used is not None:
    wrong = given[(used > 0) & ~((given >= 0) & (given <= 1))]
    if wrong.size:
      raise ValueError(f"same must be from 0 to 1, got {wrong[0]}.")
  # A masked row must not leak a NaN through its gradient: replaced before
  # the arithmetic, not after it.
  valid = row_weights > 0
  rows, labels = jnp.where(valid, rows, 0.0), jnp.where(valid, labels, 0.0)
  return rows, labels, row_weights


def binary_cross_entropy(
  logits: ArrayLike,
  same: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  pos_weight: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes the binary cross-entropy of "same person" logits.

    -[c y log s(z) + (1 - y) log(1 - s(z))]
  with s the sigmoid, computed as c y softplus(-z) + (1 - y) softplus(z), which
  cannot overflow.
  Batch meaning: rows are independent.

  Args:
    logits: z, float [B], any size.
    same: y, 1 = same person, 0 = two people, [B]; between them is a soft
      label.
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    pos_weight: c, > 0: what a pair of one person counts for; the number of
      other pairs over the number of these makes both sides count the same.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes differ, the logits are not floating point, a label
      is not from 0 to 1 or pos_weight is not positive.

  Degenerate input: a row of weight 0 has value 0 and no gradient, whatever it
  holds.
  Example:
    >>> values, _ = binary_cross_entropy(jnp.array([0.0]), jnp.array([1]))
    >>> round(float(values[0]), 4)
    0.6931
  """
  _checks.above("pos_weight", pos_weight, 0)
  logits, same, weights = _prepare("logits", logits, same, weights)
  values = pos_weight * same * jax.nn.softplus(-logits)
  values = values + (1.0 - same) * jax.nn.softplus(logits)
  return jnp.where(weights > 0, values, 0.0), weights


def contrastive(
  distances: ArrayLike,
  same: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  margin: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes the contrastive loss of pair distances.

    same d^2 + (1 - same) max(margin - d, 0)^2

    same  d            pulls    loss
    1     near         -        d^2, small
    1     far          together d^2, large
    0     d < margin   apart    (margin - d)^2
    0     d >= margin  -        0
  Batch meaning: rows are independent.

  Args:
    distances: plain (not squared) Euclidean distances, float [B], >= 0.
    same: 1 = same person, 0 = two people, [B].
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    margin: distance beyond which two people cost nothing, > 0; at most 2 for
      unit vectors.

  Returns:
    (values, weights): losses, float32 [B], >= 0, and weights, float32 [B].

  Raises:
    ValueError: if shapes differ, distances are not floating point, a label is
      not from 0 to 1 or the margin is not positive.

  Degenerate input: a row of weight 0 has value 0 and no gradient, whatever it
  holds. Two people at distance 0 cost margin^2, but `ops.euclidean_distance`
  has gradient 0 there: only a difference can part them.
  Example:
    >>> d, same = jnp.array([0.5, 0.5, 1.5]), jnp.array([1, 0, 0])
    >>> values, _ = contrastive(d, same, margin=0.7)
    >>> [round(float(v), 4) for v in values]
    [0.25, 0.04, 0.0]

  References: Hadsell et al. 2006, Dimensionality Reduction by Learning an
    Invariant Mapping (there with a factor 1/2 and Y = 0 for same).
  """
  _checks.above("margin", margin, 0)
  distances, same, weights = _prepare("distances", distances, same, weights)
  gap = jnp.maximum(margin - distances, 0.0)
  values = same * distances**2 + (1.0 - same) * gap**2
  return jnp.where(weights > 0, values, 0.0), weights


def margin_loss(
  distances: ArrayLike,
  same: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  beta: ArrayLike = 1.2,
  margin: float = 0.2,
) -> tuple[jax.Array, jax.Array]:
  """Computes the margin loss of pair distances around a boundary.

    max(0, margin + (2 same - 1) (d - beta))

    same  d                 pulls     loss
    1     < beta - margin   -         0
    1     > beta - margin   together  d - (beta - margin)
    0     < beta + margin   apart     (beta + margin) - d
    0     > beta + margin   -         0
  The boundary beta may be learned, one for all or one for each anchor's
  person. The paper draws the negatives by distance-weighted sampling, and its
  mean goes over the pairs that cost something: use weights * (values > 0).
  dlib's metric loss is this one with beta 0.6 and margin 0.04, over all pairs
  of one person and as many of the worst pairs of two people.
  Batch meaning: rows are independent.

  Args:
    distances: plain (not squared) Euclidean distances, float [B], >= 0; of
      unit vectors if the defaults are to make sense.
    same: 1 = same person, 0 = two people, [B].
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    beta: distance at which "same" ends, float, scalar or [B]; has a gradient.
    margin: half the width of the gap around beta, > 0.

  Returns:
    (values, weights): losses, float32 [B], >= 0, and weights, float32 [B].

  Raises:
    ValueError: if shapes differ, distances are not floating point, a label is
      not from 0 to 1 or the margin is not positive.

  Degenerate input: a row of weight 0 has value 0 and no gradient, whatever it
  holds.
  Example:
    >>> d, same = jnp.array([0.9, 1.3, 1.3, 1.5]), jnp.array([1, 1, 0, 0])
    >>> values, _ = margin_loss(d, same)
    >>> [round(float(v), 4) for v in values]
    [0.0, 0.3, 0.1, 0.0]

  References: Wu et al. 2017, Sampling Matters in Deep Embedding Learning;
    King, dlib, loss_metric_.
  """
  _checks.above("margin", margin, 0)
  distances, same, weights = _prepare("distances", distances, same, weights)
  beta = jnp.asarray(beta).astype(jnp.float32)
  if beta.ndim:
    _checks.like("beta", beta, "distances", distances)
  values = jnp.maximum(margin + (2.0 * same - 1.0) * (distances - beta), 0.0)
  return jnp.where(weights > 0, values, 0.0), weights
