"""Losses of triplets (anchor, positive, negative)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax import ops
from facesiam_jax.losses import _checks


def _prepare(
  positive_distances: ArrayLike,
  negative_distances: ArrayLike,
  weights: ArrayLike | None,
) -> tuple[jax.Array, jax.Array]:
  """Returns D(a, p) - D(a, n), 0 in masked rows, and the weights."""
  names = ("positive_distances", "negative_distances")
  positive = _checks.floats(names[0], positive_distances, 1)
  negative = _checks.floats(names[1], negative_distances, 1)
  _checks.like(names[0], positive, names[1], negative)
  row_weights = _checks.weights("weights", weights, names[0], positive)
  # Replaced before the arithmetic, so that a masked NaN has no gradient.
  valid = row_weights > 0
  gap = jnp.where(valid, positive, 0.0) - jnp.where(valid, negative, 0.0)
  return gap, row_weights


def triplet_margin(
  positive_distances: ArrayLike,
  negative_distances: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  margin: float = 0.2,
) -> tuple[jax.Array, jax.Array]:
  """Computes the triplet margin loss from distances.

    max(D(a, p) - D(a, n) + margin, 0)
  FaceNet takes D = squared Euclidean distance of unit vectors and margin 0.2;
  PyTorch takes the plain distance and margin 1. The margin is in the unit of
  D. The mean over triplets that cost something only, with none of them 0/0 in
  other libraries, is `ops.masked_mean(values, weights * (values > 0))`.
  Batch meaning: rows are independent.

  Args:
    positive_distances: D(anchor, positive), float [B], >= 0.
    negative_distances: D(anchor, negative), float [B], >= 0.
    weights: weight of each triplet, 0 = no such triplet, float [B]; None
      means all ones.
    margin: required gap, > 0.

  Returns:
    (values, weights): losses, float32 [B], >= 0, and weights, float32 [B].

  Raises:
    ValueError: if the shapes differ, distances are not floating point or the
      margin is not positive.

  Degenerate input: where all embeddings coincide the loss is `margin`; a row
  of weight 0 has value 0 and no gradient, whatever it holds.
  Example:
    >>> v, _ = triplet_margin(jnp.array([0.5]), jnp.array([0.6]), margin=0.2)
    >>> round(float(v[0]), 4)
    0.1

  References: Schroff et al. 2015, FaceNet, eq. 3.
  """
  _checks.above("margin", margin, 0)
  gap, weights = _prepare(positive_distances, negative_distances, weights)
  values = jnp.maximum(gap + margin, 0.0)
  return jnp.where(weights > 0, values, 0.0), weights


def soft_margin_triplet(
  positive_distances: ArrayLike,
  negative_distances: ArrayLike,
  weights: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the triplet loss with a soft margin, from distances.

    log(1 + exp(D(a, p) - D(a, n)))
  There is no margin to choose, and a triplet never stops pulling.
  Batch meaning: rows are independent.

  Args:
    positive_distances: D(anchor, positive), float [B], >= 0; plain distances
      in the paper.
    negative_distances: D(anchor, negative), float [B], >= 0.
    weights: weight of each triplet, 0 = no such triplet, float [B]; None
      means all ones.

  Returns:
    (values, weights): losses in nats, float32 [B], > 0, and weights, float32
    [B].

  Raises:
    ValueError: if the shapes differ or distances are not floating point.

  Degenerate input: where all embeddings coincide the loss is log 2 = 0.6931,
  the mark of a collapsed network; a row of weight 0 has value 0 and no
  gradient, whatever it holds.
  Example:
    >>> v, _ = soft_margin_triplet(jnp.array([0.5]), jnp.array([1.5]))
    >>> round(float(v[0]), 4)
    0.3133

  References: Hermans et al. 2017, In Defense of the Triplet Loss.
  """
  gap, weights = _prepare(positive_distances, negative_distances, weights)
  return jnp.where(weights > 0, jax.nn.softplus(gap), 0.0), weights


def _triplet_rows(
  anchors: ArrayLike,
  positives: ArrayLike,
  negatives: ArrayLike,
  weights: ArrayLike | None,
) -> tuple[list[jax.Array], jax.Array]:
  """Returns the three sets of embeddings, 0 in masked rows, and weights."""
  named = {"anchors": anchors, "positives": positives, "negatives": negatives}
  rows = {name: _checks.floats(name, x, 2) for name, x in named.items()}
  for name in ("positives", "negatives"):
    _checks.like("anchors", rows["anchors"], name, rows[name])
  row_weights = _checks.weights("weights", weights, "anchors", rows["anchors"])
  valid = (row_weights > 0)[:, None]
  return [jnp.where(valid, x, 0.0) for x in rows.values()], row_weights


def csc413_as_written(
  anchors: ArrayLike,
  positives: ArrayLike,
  negatives: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  margin: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes the triplet loss that the CSC413 report prints.

    |f(a) - f(p)|^2 - |f(a) - f(n)|^2 + margin,   |f| = 1
  Its equation 2: unit vectors (its figure 2), squared distances, no hinge, so
  that an easy triplet is rewarded without bound. It is here to be compared
  with `csc413_as_run`; to train, take `triplet_margin`.
  Batch meaning: rows are independent.

  Args:
    anchors: embeddings, float [B, D], any length; scaled to 1 here.
    positives: other images of the anchors' people, float [B, D].
    negatives: images of other people, float [B, D].
    weights: weight of each triplet, 0 = padding, float [B]; None means ones.
    margin: alpha, > 0, in squared distances of unit vectors (0 to 4).

  Returns:
    (values, weights): losses, float32 [B], from margin - 4 to margin + 4, so
    they may be negative, and weights, float32 [B].

  Raises:
    ValueError: if shapes differ, embeddings are not floating point or the
      margin is not positive.

  Degenerate input: where all embeddings coincide the loss is `margin`; a row
  of weight 0 has value 0 and no gradient, whatever it holds.
  Example:
    >>> a, p = jnp.array([[2.0, 0.0]]), jnp.array([[1.0, 0.0]])
    >>> values, _ = csc413_as_written(a, p, jnp.array([[0.0, 3.0]]))
    >>> round(float(values[0]), 4)
    -1.0

  References: Magnuson, Meng and Tascioglu, Siamese Neural Networks for Facial
    Recognition (CSC413 report), eq. 1 and 2.
  """
  _checks.above("margin", margin, 0)
  rows, weights = _triplet_rows(anchors, positives, negatives, weights)
  anchors, positives, negatives = (ops.l2_normalize(x) for x in rows)
  values = ops.squared_distance(anchors, positives) + margin
  values = values - ops.squared_distance(anchors, negatives)
  return jnp.where(weights > 0, values, 0.0), weights


def csc413_as_run(
  anchors: ArrayLike,
  positives: ArrayLike,
  negatives: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  margin: float = 1.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes the triplet loss that the CSC413 report's figures came from.

    max(|f(a) - f(p)| - |f(a) - f(n)| + margin, 0)
  The function it names, `pairwise_distance`, does not square, and the usual
  triplet margin loss over it has the hinge. The embeddings were not scaled to
  length 1: its mean distances, 2.592 and 4.779, exceed 2. (PyTorch also adds
  1e-6 to every difference, to avoid the gradient of |0|; here it is 0.)
  Batch meaning: rows are independent.

  Args:
    anchors: embeddings, float [B, D], taken as they are.
    positives: other images of the anchors' people, float [B, D].
    negatives: images of other people, float [B, D].
    weights: weight of each triplet, 0 = padding, float [B]; None means ones.
    margin: alpha, > 0, in plain distances.

  Returns:
    (values, weights): losses, float32 [B], >= 0, and weights, float32 [B].

  Raises:
    ValueError: if shapes differ, embeddings are not floating point or the
      margin is not positive.

  Degenerate input: where all embeddings coincide the loss is `margin` and has
  no gradient; a row of weight 0 has value 0 and no gradient, whatever it
  holds.
  Example:
    >>> a, p = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 0.0]])
    >>> values, _ = csc413_as_run(a, p, jnp.array([[2.0, 2.5]]))
    >>> round(float(values[0]), 4)
    0.5

  References: Magnuson, Meng and Tascioglu, Siamese Neural Networks for Facial
    Recognition (CSC413 report), table 2 and section 4.
  """
  rows, weights = _triplet_rows(anchors, positives, negatives, weights)
  return triplet_margin(
    ops.euclidean_distance(rows[0], rows[1]),
    ops.euclidean_distance(rows[0], rows[2]),
    weights,
    margin=margin,
  )
