"""Softmax cross-entropy, and what all losses over class centres share.

    L_i = -log e^(s psi_i) / (e^(s psi_i) + sum_{j != y} e^(s cos_ij))
with cos_ij the cosine between embedding i and the centre of class j, and psi_i
= psi(cos_iy) from `margins`. Everything is float32, and the loss is
softplus(log sum_{j != y} e^(s cos_j) - s psi), which keeps its digits where
the example is easy and the loss nearly 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax import ops
from facesiam_jax.losses import _checks

# (cosines to the own class [B], norms of the embeddings [B]) -> psi [B].
Target = Callable[[jax.Array, jax.Array], jax.Array]


def prepare(
  name: str,
  rows: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None,
  num_classes: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Checks a batch and empties its masked rows before any arithmetic.

  Args:
    name: of `rows`, for the messages.
    rows: embeddings or logits, float [B, N].
    labels: class of each row, integers [B]; of masked rows anything.
    weights: 0 = padding, float [B]; None means all ones.
    num_classes: labels must be below it, as far as they are known.

  Returns:
    (rows, labels, weights): float32 [B, N], int32 [B] and float32 [B], with
    rows and labels 0 where the weight is.

  Raises:
    ValueError: if a rank, shape or dtype is wrong, an array empty, or a known
      label of a valid row outside [0, num_classes).
  """
  batch = _checks.floats(name, rows, 2)
  masks = _checks.weights("weights", weights, name, batch)
  numbers = _checks.labels(
    "labels", labels, name, batch, low=0, high=num_classes - 1, used=weights
  )
  valid = masks > 0
  batch = jnp.where(valid[:, None], batch, 0.0)
  return batch, jnp.where(valid, numbers, 0), masks


def check_centers(name: str, centers: ArrayLike, embeddings: ArrayLike) -> None:
  """Raises ValueError unless the centres fit embeddings of shape [B, D].

  Args:
    name: of `centers`, for the messages.
    centers: class centres, float [C, D], or [C, K, D] with K to a class.
    embeddings: [B, D].
  """
  centers, embeddings = jnp.asarray(centers), jnp.asarray(embeddings)
  fits = centers.ndim in (2, 3) and centers.shape[-1:] == embeddings.shape[-1:]
  if not fits or not centers.size:
    raise ValueError(
      f"{name} must be [C, D] or [C, K, D] with the embeddings' D and not "
      f"empty, got {centers.shape} and embeddings {embeddings.shape}."
    )
  if not jnp.issubdtype(centers.dtype, jnp.floating):
    raise ValueError(
      f"{name} must be floating point, got dtype {centers.dtype}."
    )


def row_norms(rows: jax.Array) -> jax.Array:
  """Returns the length of each row, float32 [B], from 1e-30 to 1e30.

  A zero row has length 0 with gradient 0.
  """
  largest = lax.stop_gradient(jnp.max(jnp.abs(rows), axis=-1))
  zero = largest == 0
  shrunk = rows / jnp.where(zero, 1.0, largest)[:, None]
  sums = jnp.sum(jnp.square(shrunk), axis=-1)
  return jnp.where(zero, 0.0, largest * jnp.sqrt(jnp.where(zero, 1.0, sums)))


def class_cosines(unit_rows: jax.Array, centers: jax.Array) -> jax.Array:
  """Returns the cosines of rows and class centres, float32 [B, C].

  Args:
    unit_rows: embeddings of length 1, float32 [B, D].
    centers: float [C, D], any length, or [C, K, D], of which the nearest of
      the K counts.
  """
  unit_centers = ops.l2_normalize(centers)
  flat = unit_centers.reshape(-1, centers.shape[-1])
  cosines = ops.pairwise_dot(unit_rows, flat)
  if centers.ndim == 2:
    return cosines
  return jnp.max(cosines.reshape(-1, *centers.shape[:2]), axis=-1)


def peak_and_total(
  logits: jax.Array, counted: jax.Array, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array]:
  """Returns the largest logit and sum e^(logit - largest) of each row.

  Args:
    logits: float32 [B, C].
    counted: which of them count, bool [B, C].
    axis_name: if given, the largest is taken over all devices of that axis;
      the sum stays this device's own.

  Returns:
    (peaks, totals), float32 [B]; (0, 0) for a row that counts nothing.
  """
  peaks = jnp.max(jnp.where(counted, logits, -jnp.inf), axis=-1)
  # The result does not depend on the peak, so that it needs no gradient.
  peaks = lax.stop_gradient(peaks)
  if axis_name is not None:
    peaks = lax.pmax(peaks, axis_name)
  peaks = jnp.where(peaks == -jnp.inf, 0.0, peaks)
  # Replaced before exp: e^(own - largest other) may overflow.
  excess = jnp.where(counted, logits - peaks[:, None], -jnp.inf)
  # Compiled, a logit may be rounded otherwise here than in its peak; of 1e10
  # that is enough to overflow. The gradient stays that of excess.
  excess -= lax.stop_gradient(jnp.maximum(excess, 0.0))
  return peaks, jnp.sum(jnp.exp(excess), axis=-1)


def cross_entropy(
  targets: jax.Array, peaks: jax.Array, totals: jax.Array
) -> jax.Array:
  """Returns -log of the softmax at the target, float32 [B], >= 0.

  Args:
    targets: logit of each row's own class, float32 [B].
    peaks: largest logit of the other classes, [B].
    totals: sum of e^(logit - peak) over them, [B]; 0 if there is none.
  """
  alone = totals == 0
  log_odds = peaks - targets + jnp.log(jnp.where(alone, 1.0, totals))
  # Times 0, so that a NaN stays one even without another class.
  return jnp.where(alone, 0.0 * targets, jax.nn.softplus(log_odds))


def finish(
  values: jax.Array, labels: jax.Array, weights: jax.Array, num_classes: int
) -> jax.Array:
  """Returns the values, 0 where masked and NaN where the label is no class."""
  known = (labels >= 0) & (labels < num_classes)
  return jnp.where(weights > 0, values * jnp.where(known, 1.0, jnp.nan), 0.0)


def softmax_cross_entropy(
  logits: ArrayLike, labels: ArrayLike, weights: ArrayLike | None = None
) -> tuple[jax.Array, jax.Array]:
  """Computes the cross-entropy of class logits: the baseline classifier.

    log sum_j e^(z_j) - z_y
  Batch meaning: rows are independent.

  Args:
    logits: z, float [B, C], any size.
    labels: y, class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty or a label
      that is known at trace time is outside [0, C).

  Degenerate input: a row of weight 0 has value 0 and no gradient, whatever it
  holds; with one class the loss is 0. A wrong label seen only at run time
  gives NaN.
  Example:
    >>> logits = jnp.array([[1.0, 1.0]])
    >>> values, _ = softmax_cross_entropy(logits, jnp.array([0]))
    >>> round(float(values[0]), 4)
    0.6931
  """
  num_classes = jnp.shape(logits)[-1] if jnp.ndim(logits) else 0
  logits, labels, weights = prepare(
    "logits", logits, labels, weights, num_classes
  )
  own = labels[:, None] == jnp.arange(num_classes)[None, :]
  targets = jnp.sum(jnp.where(own, logits, 0.0), axis=-1)
  values = cross_entropy(targets, *peak_and_total(logits, ~own))
  return finish(values, labels, weights, num_classes), weights


def margin_cross_entropy(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  target: Target,
  scale: float | None = 64.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes the softmax loss over cosines with any margin at the own class.

  Batch meaning: rows are independent, unless `target` says otherwise.

  Args:
    embeddings: float [B, D], any length (the cosine is taken).
    class_weights: class centres, float [C, D], any length, or [C, K, D] with K
      centres to a class, of which the nearest counts.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    target: (cosines to the own class [B], norms of the embeddings [B]) -> psi
      [B]; masked rows come as zeros.
    scale: s, > 0; None takes each embedding's own norm, as SphereFace does.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C) or the scale is not positive.

  Degenerate input: a row of weight 0 has value 0 and no gradient, whatever it
  holds; a zero embedding or centre has cosine 0 and no gradient; with one
  class the loss is 0. A wrong label seen only at run time gives NaN.
  Example:
    >>> square = jnp.eye(2)
    >>> values, _ = margin_cross_entropy(
    ...   square, square, jnp.array([0, 1]), target=lambda c, n: c, scale=1.0
    ... )
    >>> round(float(values[0]), 4)
    0.3133
  """
  if scale is not None:
    _checks.above("scale", scale, 0)
  check_centers("class_weights", class_weights, embeddings)
  centers = jnp.asarray(class_weights)
  num_classes = centers.shape[0]
  embeddings, labels, weights = prepare(
    "embeddings", embeddings, labels, weights, num_classes
  )
  norms = row_norms(embeddings)
  cosines = class_cosines(ops.l2_normalize(embeddings), centers)
  own = labels[:, None] == jnp.arange(num_classes)[None, :]
  psi = target(jnp.sum(jnp.where(own, cosines, 0.0), axis=-1), norms)
  factors = norms if scale is None else jnp.full_like(norms, scale)
  sums = peak_and_total(factors[:, None] * cosines, ~own)
  values = cross_entropy(factors * psi, *sums)
  return finish(values, labels, weights, num_classes), weights
