"""Roots, lengths and means that stay finite where the plain ones do not."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax.ops import checks

__all__ = [
  "absolute",
  "l2_normalize",
  "length",
  "masked_mean",
  "safe_sqrt",
  "scale_of",
  "scaled",
]

# Below this the hardware may flush a float32 to zero (CPUs under XLA do).
SMALLEST = float(np.finfo(np.float32).tiny)
# Powers of two whose reciprocals are not flushed either: XLA may turn a
# division by a broadcast scale into a product with its reciprocal. Twice the
# smallest number, because XLA's folding of constants flushes that one itself.
_SMALLEST_SCALE = 2.0 * SMALLEST
_LARGEST_SCALE = 1.0 / _SMALLEST_SCALE


def safe_sqrt(x: ArrayLike) -> jax.Array:
  """Returns the square root with gradient 0, not infinity, at 0.

  Batch meaning: elements are independent.

  Args:
    x: values, float, any shape; below 1.2e-38, negative too, they count as 0.

  Returns:
    Square roots, float32, same shape.

  Raises:
    ValueError: if x is empty or not floating point.

  Degenerate input: x <= 0 gives value 0 and gradient 0 (a double `where`,
  since a single one multiplies infinity by zero in the backward pass).
  Example:
    >>> safe_sqrt(jnp.array([4.0, 0.0])).tolist()
    [2.0, 0.0]
  """
  x = checks.floats("x", x)
  # Asked this way round, NaN is not zero and stays NaN.
  zero = x < SMALLEST
  return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, x)))


def absolute(x: jax.Array) -> jax.Array:
  """Returns |x|, with gradient 0 at 0, where that of `jnp.abs` is 1.

  Args:
    x: float32, any shape.

  Returns:
    float32, same shape.
  """
  return x * lax.stop_gradient(jnp.sign(x))


def scale_of(x: jax.Array) -> jax.Array:
  """Returns a power of two near each row's largest entry, without gradient.

  Dividing by it is exact and brings squares into the range of float32: the
  entries of a row that is not zero become at most 1.5, the largest at least
  0.75. A zero row has the smallest scale, so that beside another row it does
  not decide the common one.

  Args:
    x: float32 [..., D].

  Returns:
    float32 [..., 1], in [2^-125, 2^125].
  """
  largest = jnp.max(jnp.abs(lax.stop_gradient(x)), axis=-1, keepdims=True)
  power_of_two = lax.reduce_precision(largest, 8, 0)
  return jnp.clip(power_of_two, _SMALLEST_SCALE, _LARGEST_SCALE)


def scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
  """Returns x / scale, whose squares are then taken as they stand.

  Of arrays that are constants in a compiled function XLA makes (x / s)^2 into
  x^2 / s^2, which overflows or is 0 / 0; the barrier keeps it from that.

  Args:
    x: float32, any shape.
    scale: from `scale_of`, broadcast against x.

  Returns:
    float32, same shape as x.
  """
  return lax.optimization_barrier(x / scale)


def l2_normalize(x: ArrayLike) -> jax.Array:
  """Scales each row to unit Euclidean length.

    x / |x|
  Batch meaning: rows are independent.

  Args:
    x: embeddings, float [..., D], entries of any magnitude from 1e-30 to 1e30.

  Returns:
    Unit-norm rows, float32 [..., D].

  Raises:
    ValueError: if x has rank 0, is empty or not floating point.

  Degenerate input: a zero row stays zero, with gradient zero.
  Example:
    >>> unit = l2_normalize(jnp.array([[3e30, 4e30]]))
    >>> [round(float(value), 4) for value in unit[0]]
    [0.6, 0.8]
  """
  x = checks.floats("x", x)
  if x.ndim == 0:
    raise ValueError(f"x must have at least one axis, got shape {x.shape}.")
  # The scale needs no gradient because the result does not depend on it.
  x = scaled(x, scale_of(x))
  norm_sq = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  zero = norm_sq == 0
  return jnp.where(zero, 0.0, x * lax.rsqrt(jnp.where(zero, 1.0, norm_sq)))


@jax.custom_jvp
def length(x: jax.Array) -> jax.Array:
  """Returns |x| of each row, right from 1e-30 to 1e30, as its gradient is.

  The rule of its own keeps the gradient, x / |x|, free of the scale: passing
  through it, a small cotangent times a small scale would be flushed to zero.

  Args:
    x: float32 [..., D].

  Returns:
    Lengths, float32 [...]; a zero row has length 0 and gradient 0.
  """
  scale = scale_of(x)
  norm = jnp.sqrt(jnp.sum(jnp.square(scaled(x, scale)), axis=-1))
  return scale[..., 0] * norm


@length.defjvp
def _length_jvp(
  primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  (x,), (dx,) = primals, tangents
  return length(x), jnp.sum(l2_normalize(x) * dx, axis=-1)


def masked_mean(values: ArrayLike, weights: ArrayLike) -> jax.Array:
  """Returns the mean of the weighted values.

    sum(v w) / max(sum(w), 1)
  Batch meaning: the mean is over what is given; over several devices, sum
  numerator and denominator first.

  Args:
    values: v, float, any shape; may hold anything, NaN too, where the weight
      is 0.
    weights: w, same shape, >= 0; usually 0 or 1.

  Returns:
    The mean, float32 scalar.

  Raises:
    ValueError: if the shapes differ or are empty.

  Degenerate input: 0 where all weights are 0; a value of weight 0 has
  gradient 0.
  Example:
    >>> mean = masked_mean(jnp.array([1.0, jnp.nan, 4.0]), jnp.array([1, 0, 1]))
    >>> round(float(mean), 4)
    2.5
  """
  values = jnp.asarray(values).astype(jnp.float32)
  weights = jnp.asarray(weights).astype(jnp.float32)
  if values.shape != weights.shape:
    raise ValueError(
      "values and weights must have the same shape, got "
      f"{values.shape} and {weights.shape}."
    )
  if values.size == 0:
    raise ValueError(
      "values and weights must not be empty, got shapes "
      f"{values.shape} and {weights.shape}."
    )
  values = jnp.where(weights > 0, values, 0.0)
  return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)
