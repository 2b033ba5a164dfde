"""Layers whose gradients are fast on CPU: convolution, max-pooling, dropout.

On CPU XLA computes the gradients of a convolution and of max-pooling slowly,
and inside `lax.scan` tens of times slower still, so both have a gradient
written here. GPU and TPU keep their native gradients; values and gradients
agree on every platform to float32 rounding. Gradients are reverse mode, first
order: `jax.grad` and `jax.vjp` work, `jax.jvp` and Hessians do not.
`RowDropout` draws the mask of an example from its place in the global batch,
so that a step does not depend on the number of devices.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import ArrayLike

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Images per GEMM of the weight gradient: their patches stay in the cache.
_CHUNK = 8

Padding = tuple[tuple[int, int], tuple[int, int]]
Residuals = tuple[jax.Array, jax.Array]


def _native_conv(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> jax.Array:
  return lax.conv_general_dilated(
    images, kernel, strides, pads, dimension_numbers=_LAYOUT
  )


def _patches(
  images: jax.Array, window: Sequence[int], strides: tuple[int, int]
) -> jax.Array:
  """Lays the padded images' windows side by side: [B, h, w, kh * kw * C]."""
  batch, height, width, channels = images.shape
  (kh, kw), (sh, sw) = window, strides
  h, w = (height - kh) // sh + 1, (width - kw) // sw + 1
  taps = []
  for i in range(kh):
    for j in range(kw):
      end = (batch, i + (h - 1) * sh + 1, j + (w - 1) * sw + 1, channels)
      taps.append(lax.slice(images, (0, i, j, 0), end, (1, sh, sw, 1)))
  return jnp.concatenate(taps, axis=-1)


def _kernel_gradient(
  images: jax.Array,
  cotangent: jax.Array,
  window: Sequence[int],
  strides: tuple[int, int],
  pads: Padding,
) -> jax.Array:
  """Gradient with respect to the kernel, as GEMMs over a few images each."""
  batch, channels, features = len(images), images.shape[-1], cotangent.shape[-1]
  extra = -batch % _CHUNK
  images = jnp.pad(images, ((0, extra), *pads, (0, 0)))
  cotangent = jnp.pad(cotangent, ((0, extra), (0, 0), (0, 0), (0, 0)))

  def add_chunk(
    total: jax.Array, chunk: tuple[jax.Array, jax.Array]
  ) -> tuple[jax.Array, None]:
    some_images, some_cotangent = chunk
    rows = _patches(some_images, window, strides)
    product = lax.dot_general(
      rows.reshape(-1, rows.shape[-1]),
      some_cotangent.reshape(-1, features),
      (((0,), (0,)), ((), ())),
      preferred_element_type=jnp.float32,
    )
    return total + product, None

  chunks = (
    images.reshape(-1, _CHUNK, *images.shape[1:]),
    cotangent.reshape(-1, _CHUNK, *cotangent.shape[1:]),
  )
  zeros = jnp.zeros((math.prod(window) * channels, features), jnp.float32)
  total, _ = lax.scan(add_chunk, zeros, chunks)
  return total.reshape(*window, channels, features)


def _image_gradient(
  kernel: jax.Array,
  cotangent: jax.Array,
  size: Sequence[int],
  strides: tuple[int, int],
  pads: Padding,
) -> jax.Array:
  """Gradient with respect to the images: a convolution, the kernel flipped."""
  spread = [(0, 0, 0)]
  for axis in (0, 1):
    window, stride = kernel.shape[axis], strides[axis]
    before = window - 1 - pads[axis][0]
    spread_size = (cotangent.shape[1 + axis] - 1) * stride + 1
    after = size[axis] + window - 1 - before - spread_size
    spread.append((before, after, stride - 1))
  spread.append((0, 0, 0))
  # Padding may be negative (it crops), which a convolution's own may not.
  padded = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), spread)
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  return _native_conv(padded, flipped, (1, 1), ((0, 0), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> jax.Array:
  return _native_conv(images, kernel, strides, pads)


def _conv_forward(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> tuple[jax.Array, Residuals]:
  return _native_conv(images, kernel, strides, pads), (images, kernel)


def _conv_backward(
  strides: tuple[int, int],
  pads: Padding,
  residuals: Residuals,
  cotangent: jax.Array,
) -> Residuals:
  def own(
    images: jax.Array, kernel: jax.Array, cotangent: jax.Array
  ) -> Residuals:
    (_, *size, _), (*window, _, _) = images.shape, kernel.shape
    return (
      _image_gradient(kernel, cotangent, size, strides, pads),
      _kernel_gradient(images, cotangent, window, strides, pads).astype(
        kernel.dtype
      ),
    )

  def native(
    images: jax.Array, kernel: jax.Array, cotangent: jax.Array
  ) -> Residuals:
    run = functools.partial(_native_conv, strides=strides, pads=pads)
    return jax.vjp(run, images, kernel)[1](cotangent)

  return lax.platform_dependent(*residuals, cotangent, cpu=own, default=native)


_conv.defvjp(_conv_forward, _conv_backward)


def _explicit_pads(
  size: Sequence[int],
  window: Sequence[int],
  strides: tuple[int, int],
  padding: str | Padding,
) -> Padding:
  if isinstance(padding, str):
    if padding not in ("SAME", "VALID"):
      raise ValueError(
        f"padding must be 'SAME', 'VALID' or pairs, not {padding!r}."
      )
    (top, bottom), (left, right) = lax.padtype_to_pads(
      size, window, strides, padding
    )
  else:
    (top, bottom), (left, right) = padding
    if min(top, bottom, left, right) < 0:
      raise ValueError(f"padding must not be negative, not {padding}.")
  return (int(top), int(bottom)), (int(left), int(right))


def conv(
  images: ArrayLike,
  kernel: ArrayLike,
  *,
  strides: int | tuple[int, int] = 1,
  padding: str | Padding = "SAME",
) -> jax.Array:
  """Convolves a batch of images with a kernel (no bias, no dilation).

  As in every neural network, the kernel is not flipped:
    out[b, y, x, o] =
      sum_ijc images[b, y s + i - p, x s + j - p, c] kernel[i, j, c, o]
  The gradient on CPU is our own: GEMMs over the patches of 8 images at a time
  for the kernel, a plain convolution for the images.
  Batch meaning: rows are independent.

  Args:
    images: float [B, H, W, C].
    kernel: float [kh, kw, C, O], of the images' dtype.
    strides: step of the window in pixels, one number or (down, across), >= 1.
    padding: "SAME", "VALID" or ((top, bottom), (left, right)) in pixels, >= 0.

  Returns:
    The images' dtype, [B, h, w, O].

  Raises:
    ValueError: if the channels differ, a stride is below 1, the padding is
      unknown or negative, or the window is larger than the padded image.

  Degenerate input: B == 0 gives an empty result and a zero kernel gradient.
  References: Chellapilla et al. 2006, High performance convolutional neural
    networks for document processing (convolution as a matrix product).
  """
  images, kernel = jnp.asarray(images), jnp.asarray(kernel)
  chex.assert_rank([images, kernel], 4)
  chex.assert_type([images, kernel], float)
  down, across = (strides, strides) if isinstance(strides, int) else strides
  if images.shape[-1] != kernel.shape[2]:
    raise ValueError(
      f"images {images.shape} and kernel {kernel.shape} differ in channels."
    )
  if min(down, across) < 1:
    raise ValueError(f"strides must be at least 1, not {strides}.")
  (_, *size, _), (*window, _, _) = images.shape, kernel.shape
  pads = _explicit_pads(size, window, (down, across), padding)
  if any(size[i] + sum(pads[i]) < window[i] for i in (0, 1)):
    raise ValueError(f"window {window} exceeds the padded image {size}.")
  return _conv(images, kernel, (down, across), pads)


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
  kernel_size: Sequence[int] = (3, 3)
  strides: int | tuple[int, int] = 1
  padding: str | Padding = "SAME"
  use_bias: bool = True
  pool: bool = False
  kernel_init: Any = nn.initializers.he_normal()

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns [B, h, w, features] of images [B, H, W, C]."""
    shape = (*self.kernel_size, images.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    outputs = conv(
      images,
      kernel.astype(images.dtype),
      strides=self.strides,
      padding=self.padding,
    )
    if self.pool:
      outputs = max_pool(outputs)
    if self.use_bias:
      bias = self.param(
        "bias", nn.initializers.zeros_init(), (self.features,), jnp.float32
      )
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
