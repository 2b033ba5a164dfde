"""Softmax losses over class centres with a fixed margin at the own class.

CosFace, ArcFace, their combination, SphereFace and sub-centre ArcFace. Those
whose margin depends on the example are in `adaptive_margin`, centres sharded
over devices in `partial_fc`, the margins themselves in `margins`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from facesiam_jax.losses import margins
from facesiam_jax.losses.softmax import margin_cross_entropy


def cosface(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  scale: float = 64.0,
  margin: float = 0.35,
) -> tuple[jax.Array, jax.Array]:
  """Computes CosFace: softmax over s cos(t_j), the own class less s margin.

  Its margin has slope 1 everywhere: nothing to guard, the safest of the
  margins in low precision.
  Batch meaning: rows are independent.

  Args:
    embeddings: float [B, D], any length (the cosine is taken).
    class_weights: class centres, float [C, D], any length.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    scale: s, > 0.
    margin: in units of cosine, in [0, 2]; the paper has 0.35, insightface's
      large recipes 0.4.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C), or scale or margin is out of
      range.

  Degenerate input: as `softmax.margin_cross_entropy`.
  Example:
    >>> one = jnp.eye(2)
    >>> values, _ = cosface(one, one, jnp.array([0, 1]), scale=1.0)
    >>> round(float(values[0]), 4)
    0.4201

  References: Wang et al. 2018, CosFace, eq. 4.
  """
  return margin_cross_entropy(
    embeddings,
    class_weights,
    labels,
    weights,
    target=lambda cosines, norms: margins.cosface(cosines, margin=margin),
    scale=scale,
  )


def arcface(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  scale: float = 64.0,
  margin: float = 0.5,
  gradient: str = "exact",
) -> tuple[jax.Array, jax.Array]:
  """Computes ArcFace: softmax over s cos(t_j), the own class s cos(t + margin).

  Past t = pi - margin the own class has s (cos(t) - margin sin(margin)), so
  that it falls for every t. The slope of cos(t + margin) by cos(t) at margin
  0.5, in its two readings:

    cos(t)              0.9    0.5    0      -0.5   -0.95
    "exact"             1.868  1.154  0.878  0.601  1 (-0.581 without the bend)
    "straight_through"  1      1      1      1      1

  Batch meaning: rows are independent.

  Args:
    embeddings: float [B, D], any length (the cosine is taken).
    class_weights: class centres, float [C, D], any length.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    scale: s, > 0.
    margin: in radians, in [0, pi/2] (pytorch-metric-learning has degrees).
    gradient: "exact", or "straight_through": the value of the margin, but the
      gradient of a plain cosine, as insightface's arcface_torch trains.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C), scale or margin is out of range
      or the gradient has another name.

  Degenerate input: as `softmax.margin_cross_entropy`; where an embedding
  points exactly at its centre or away from it, the gradient is finite.
  Example:
    >>> one = jnp.eye(2)
    >>> values, _ = arcface(one, one, jnp.array([0, 1]), scale=1.0)
    >>> round(float(values[0]), 4)
    0.3477

  References: Deng et al. 2019, ArcFace, eq. 3.
  """
  return margin_cross_entropy(
    embeddings,
    class_weights,
    labels,
    weights,
    target=lambda cosines, norms: margins.arcface(
      cosines, margin=margin, gradient=gradient
    ),
    scale=scale,
  )


def combined_margin(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  scale: float = 64.0,
  m1: float = 1.0,
  m2: float = 0.3,
  m3: float = 0.2,
) -> tuple[jax.Array, jax.Array]:
  """Computes the softmax loss with s (cos(m1 t + m2) - m3) at the own class.

  (1, m, 0) is ArcFace, (1, 0, m) is CosFace. Past m1 t + m2 = pi it goes on
  falling, as `margins.combined` says.
  Batch meaning: rows are independent.

  Args:
    embeddings: float [B, D], any length (the cosine is taken).
    class_weights: class centres, float [C, D], any length.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    scale: s, > 0.
    m1: factor on the angle, > 0.
    m2: angle added, in radians, in [0, pi/2].
    m3: cosine subtracted, in [0, 2].

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C), or scale or a margin is out of
      range.

  Degenerate input: as `arcface`.
  Example:
    >>> one = jnp.eye(2)
    >>> values, _ = combined_margin(one, one, jnp.array([0, 1]), scale=1.0)
    >>> round(float(values[0]), 4)
    0.3852

  References: Deng et al. 2019, ArcFace, eq. 4.
  """
  return margin_cross_entropy(
    embeddings,
    class_weights,
    labels,
    weights,
    target=lambda cosines, norms: margins.combined(
      cosines, m1=m1, m2=m2, m3=m3
    ),
    scale=scale,
  )


def sphereface_annealing(
  step: ArrayLike,
  *,
  start: float = 1000.0,
  rate: float = 0.12,
  power: float = 1.0,
  least: float = 5.0,
) -> jax.Array:
  """Returns max(least, start (1 + rate step)^-power), SphereFace's annealing.

  The defaults are those of the authors' training file.

  Args:
    step: number of the training step, >= 0, any shape.
    start: value at step 0.
    rate: of decay per step.
    power: of decay.
    least: what it falls to.

  Returns:
    The share of plain softmax, float32, the shape of step.

  Example:
    >>> round(float(sphereface_annealing(100)), 4)
    76.9231
  """
  step = jnp.asarray(step).astype(jnp.float32)
  return jnp.maximum(least, start * (1.0 + rate * step) ** -power)


def sphereface(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  scale: float | None = None,
  margin: int = 4,
  annealing: ArrayLike = 5.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes SphereFace (A-Softmax): the own angle is multiplied by margin.

    own class: s (a cos(t) + (-1)^k cos(m t) - 2 k) / (1 + a)
    with k = floor(m t / pi)
  Batch meaning: rows are independent.

  Args:
    embeddings: float [B, D], any length.
    class_weights: class centres, float [C, D], any length.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    scale: s, > 0; None is the paper's: each embedding's own norm.
    margin: m, a whole number >= 1.
    annealing: a, >= 0: share of plain softmax at this step, from
      `sphereface_annealing`; 0 is the bare margin.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C), or scale, margin or annealing
      is out of range.

  Degenerate input: as `softmax.margin_cross_entropy`; without a scale a zero
  embedding has loss log C.
  Example:
    >>> one = jnp.eye(2)
    >>> x = one + 0.5
    >>> values, _ = sphereface(x, one, jnp.array([0, 1]), annealing=0.0)
    >>> round(float(values[0]), 4)
    0.7222

  References: Liu et al. 2017, SphereFace, eq. 7.
  """
  return margin_cross_entropy(
    embeddings,
    class_weights,
    labels,
    weights,
    target=lambda cosines, norms: margins.sphereface(
      cosines, margin=margin, annealing=annealing
    ),
    scale=scale,
  )


def sub_center(
  embeddings: ArrayLike,
  class_weights: ArrayLike,
  labels: ArrayLike,
  weights: ArrayLike | None = None,
  *,
  scale: float = 64.0,
  margin: float = 0.5,
  gradient: str = "exact",
) -> tuple[jax.Array, jax.Array]:
  """Computes sub-centre ArcFace: each class has K centres, the nearest counts.

    cos(t_j) = max_k cos(x, w_jk)
  Noisy images gather at the lesser centres of their class. The margin is
  ArcFace's; 0 leaves a plain softmax over the nearest centres.
  Batch meaning: rows are independent.

  Args:
    embeddings: float [B, D], any length (the cosine is taken).
    class_weights: K centres of each class, float [C, K, D], any length.
    labels: class of each row, integers [B] in [0, C).
    weights: weight of each row, 0 = padding, float [B]; None means all ones.
    scale: s, > 0.
    margin: in radians, in [0, pi/2].
    gradient: "exact" or "straight_through", as in `arcface`.

  Returns:
    (values, weights): losses in nats, float32 [B], >= 0, and the weights,
    float32 [B].

  Raises:
    ValueError: if shapes or dtypes do not fit, an array is empty, a label that
      is known at trace time is outside [0, C), scale or margin is out of range
      or the gradient has another name.

  Degenerate input: as `arcface`. Equal centres of a class share the gradient
  equally and never part: start them apart.
  Example:
    >>> centers = jnp.array([[[1.0, 0], [0, 1]], [[-1, 0], [0, -1]]])
    >>> values, _ = sub_center(
    ...   jnp.eye(2), centers, jnp.array([0, 0]), scale=1.0
    ... )
    >>> round(float(values[0]), 4)
    0.3477

  References: Deng et al. 2020, Sub-center ArcFace, eq. 3-4.
  """
  if jnp.ndim(class_weights) != 3:
    raise ValueError(
      f"class_weights must be [C, K, D], got {jnp.shape(class_weights)}."
    )
  return arcface(
    embeddings,
    class_weights,
    labels,
    weights,
    scale=scale,
    margin=margin,
    gradient=gradient,
  )
