"""Layers whose gradients are fast on CPU: convolution, max-pooling, dropout.

On CPU XLA computes the gradient of max-pooling slowly, and that of a
convolution inside `lax.scan` a hundred times as slowly as outside, so both have
a gradient written here. GPU and TPU keep their native gradients; values and
gradients agree on every platform to float32 rounding. Gradients are reverse
mode, first order: `jax.grad` and `jax.vjp` work, `jax.jvp` and Hessians do not.
`RowDropout` draws the mask of an example from its place in the global batch,
so that a step does not depend on the number of devices.
"""

import functools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.tree_util import Partial
from jax.typing import ArrayLike

from facesiam_jax import fusion
from facesiam_jax.encoders.convolution import Padding, conv
from facesiam_jax.encoders.initializers import he_normal


def parameter(
  module: nn.Module, name: str, init: Any, shape: tuple[int, ...]
) -> jax.Array:
  """Returns a parameter of a module, float32; `module.param`, but quick.

  Flax traces the initialiser at each call of a network too, to compare shapes:
  half of the time of tracing dlib's. Here the shapes are compared alone.

  Args:
    module: whose parameter it is, inside its own `nn.compact` method.
    name: of the parameter.
    init: initialiser, (key, shape, dtype) -> array.
    shape: of the parameter.

  Raises:
    flax.errors.ScopeParamShapeError: if the variables hold another shape.
    flax.errors.ScopeParamNotFoundError: if they hold none.
  """
  value: Any = module.get_variable("params", name)
  if getattr(value, "shape", None) == shape and not module.is_initializing():
    return value
  return module.param(name, init, shape, jnp.float32)


def _native_max_pool(images: jax.Array) -> jax.Array:
  return lax.reduce_window(
    images, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
  )


def _own_max_pool_gradient(
  images: jax.Array, cotangent: jax.Array
) -> jax.Array:
  _, height, width, _ = images.shape
  h, w = height // 2, width // 2
  corners = [
    images[:, i : 2 * h : 2, j : 2 * w : 2] for i in (0, 1) for j in (0, 1)
  ]
  # The first of equals wins, so a later corner must be strictly larger.
  best, winner = corners[0], jnp.zeros(cotangent.shape, jnp.int8)
  for number, corner in enumerate(corners[1:], start=1):
    winner = jnp.where(corner > best, jnp.int8(number), winner)
    best = jnp.maximum(best, corner)
  place = jnp.arange(4, dtype=jnp.int8).reshape(1, 1, 2, 1, 2, 1)
  spread = jnp.where(
    winner[:, :, None, :, None] == place, cotangent[:, :, None, :, None], 0
  )
  gradient = spread.reshape(len(images), 2 * h, 2 * w, images.shape[-1])
  return jnp.pad(gradient, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))


@jax.custom_vjp
def _max_pool(images: jax.Array) -> jax.Array:
  return _native_max_pool(images)


def _max_pool_forward(images: jax.Array) -> tuple[jax.Array, jax.Array]:
  return _native_max_pool(images), images


def _max_pool_backward(
  images: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array]:
  def native(images: jax.Array, cotangent: jax.Array) -> jax.Array:
    return jax.vjp(_native_max_pool, images)[1](cotangent)[0]

  return (
    lax.platform_dependent(
      images, cotangent, cpu=_own_max_pool_gradient, default=native
    ),
  )


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(images: ArrayLike) -> jax.Array:
  """Takes the maximum of each 2x2 block of pixels, stride 2.

  An odd last row or column is left out (as "VALID" does). Of equal maxima in a
  block the first in reading order takes the whole gradient, which is also what
  the native gradient does.
  Batch meaning: rows are independent.

  Args:
    images: float [B, H, W, C], H and W >= 2.

  Returns:
    The images' dtype, [B, H // 2, W // 2, C].

  Raises:
    ValueError: if H or W is below 2.

  Degenerate input: B == 0 gives an empty result. NaN: the value is NaN, and
    which pixel of its block takes the gradient is not specified.
  """
  images = jnp.asarray(images)
  chex.assert_rank(images, 4)
  chex.assert_type(images, float)
  if min(images.shape[1:3]) < 2:
    raise ValueError(f"max_pool needs 2x2 pixels or more, not {images.shape}.")
  return _max_pool(images)


class Conv(nn.Module):
  """Convolution layer with a bias; see `conv` for the arithmetic.

  Parameters: "kernel" [kh, kw, C, features], He-normal; "bias" [features],
  zeros, absent when `use_bias` is False.

  Attributes:
    features: number of output channels, >= 1.
    kernel_size: (rows, columns) of the window.
    strides: step of the window, one number or (down, across).
    padding: "SAME", "VALID" or ((top, bottom), (left, right)).
    use_bias: whether to add a bias.
    pool: takes the 2x2 maximum before the bias: the result is that of pooling
      afterwards, for a quarter of the additions.
    kernel_init: initialiser of the kernel.
  """

  features: int
  kernel_size: tuple[int, int] = (3, 3)
  strides: int | tuple[int, int] = 1
  padding: str | Padding = "SAME"
  use_bias: bool = True
  pool: bool = False
  kernel_init: Any = he_normal

  @nn.compact
  def __call__(self, images: jax.Array | Partial) -> jax.Array:
    """Returns [B, h, w, features] of images [B, H, W, C].

    Of a `Partial` they are what it makes, and the gradient makes them once more
    rather than keep them: batch normalisation keeps what they are made of
    anyhow. See `blocks.BatchNorm.later`.
    """
    given = jax.eval_shape(fusion.formed, images)
    shape = (*self.kernel_size, given.shape[-1], self.features)
    kernel = parameter(self, "kernel", self.kernel_init, shape)
    kernel = kernel.astype(given.dtype)
    run = functools.partial(conv, strides=self.strides, padding=self.padding)
    outputs = fusion.call(run, images, kernel)
    if self.pool:
      outputs = max_pool(outputs)
    if self.use_bias:
      bias = parameter(self, "bias", nn.initializers.zeros, (self.features,))
      outputs = outputs + bias.astype(outputs.dtype).reshape(1, 1, 1, -1)
    return outputs


def _mix(bits: jax.Array) -> jax.Array:
  """Scrambles 32-bit words: a bijection whose every output bit depends on all.

  The finaliser of MurmurHash3 (Appleby, public domain).
  """
  bits = (bits ^ (bits >> 16)) * jnp.uint32(0x85EBCA6B)
  bits = (bits ^ (bits >> 13)) * jnp.uint32(0xC2B2AE35)
  return bits ^ (bits >> 16)


def row_bits(key: jax.Array, rows: jax.Array, count: int) -> jax.Array:
  """Draws random 32-bit words for each row of the global batch.

  Row i's words depend on `key` and `rows[i]` alone. Each row gets two words
  from `key` by JAX's own generator; its `count` words are those two, mixed
  with a counter by a hash. That is an order of magnitude cheaper on CPU than
  JAX's generator for every word, and random enough for masks and noise, not
  for cryptography.

  Args:
    key: JAX random key.
    rows: index of each row in the global batch, int32 [B], >= 0.
    count: words a row, >= 0.

  Returns:
    uint32 [B, count].

  Degenerate input: equal rows draw equal words.
  """
  chex.assert_rank(rows, 1)
  chex.assert_type(rows, int)
  words = jax.vmap(
    lambda row: jax.random.bits(jax.random.fold_in(key, row), (2,))
  )
  first, second = jnp.split(words(rows), 2, axis=1)
  # An odd multiplier keeps the counter's values apart.
  counter = jnp.arange(count, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
  return _mix(_mix(counter[None] ^ first) + second)


def row_dropout(
  inputs: ArrayLike, rate: float, key: jax.Array, rows: ArrayLike
) -> jax.Array:
  """Sets each number to 0 with probability `rate`, scales the rest to match.

  Kept numbers are divided by 1 - rate, so that the expectation is unchanged.
  Batch meaning: the mask of row i depends on (key, rows[i]) alone, whatever
  the batch around it and however it is spread over devices.

  Args:
    inputs: float [B, ...].
    rate: probability of a zero, in [0, 1). Its resolution is 2^-32.
    key: JAX random key.
    rows: index of each row in the global batch, int32 [B], >= 0.

  Returns:
    The inputs' dtype and shape.

  Raises:
    ValueError: if rate is outside [0, 1).

  Degenerate input: rate == 0 returns the inputs unchanged.
  References: Srivastava et al. 2014, Dropout.
  """
  inputs, rows = jnp.asarray(inputs), jnp.asarray(rows)
  chex.assert_type(inputs, float)
  chex.assert_rank(rows, 1)
  chex.assert_equal_shape_prefix([inputs, rows], 1)
  if not 0 <= rate < 1:
    raise ValueError(f"rate must be in [0, 1), not {rate}.")
  if rate == 0:
    return inputs
  bits = row_bits(key, rows, math.prod(inputs.shape[1:]))
  kept = bits >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))
  return jnp.where(kept.reshape(inputs.shape), inputs / (1 - rate), 0)


class RowDropout(nn.Module):
  """Dropout whose masks depend on the example's place in the global batch.

  Takes its key from the "dropout" stream; see `row_dropout`.

  Attributes:
    rate: probability of a zero, in [0, 1).
  """

  rate: float

  @nn.compact
  def __call__(
    self, inputs: jax.Array, *, train: bool, rows: jax.Array | None
  ) -> jax.Array:
    """Drops numbers of inputs [B, ...] when training.

    Args:
      inputs: float [B, ...].
      train: False returns the inputs unchanged.
      rows: index of each row in the global batch, int32 [B].

    Returns:
      The inputs' dtype and shape.

    Raises:
      ValueError: if training with a rate above 0 and rows is None.
    """
    if not train or self.rate == 0:
      return inputs
    if rows is None:
      raise ValueError("RowDropout needs `rows` when train is True.")
    return row_dropout(inputs, self.rate, self.make_rng("dropout"), rows)
