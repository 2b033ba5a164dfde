"""Windows that move over images, and pooling.

Where XLA's own gradient is slow on CPU (`encoders.layers` says why), there is
one written here; GPU and TPU keep the native ones. Reverse mode, first order.
"""

import functools
from collections.abc import Iterator, Sequence

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax import fusion

Pair = int | tuple[int, int]
Setting = tuple[tuple[int, int], int, int]


def pair(value: Pair) -> tuple[int, int]:
  """Returns (value, value) for one number, and a pair as it is."""
  return (value, value) if isinstance(value, int) else (value[0], value[1])


def taps(
  images: jax.Array, window: Sequence[int], stride: int
) -> Iterator[jax.Array]:
  """Yields, for each place in the window, the pixels that it meets."""
  batch, height, width, channels = images.shape
  down = (height - window[0]) // stride * stride + 1
  across = (width - window[1]) // stride * stride + 1
  for i in range(window[0]):
    for j in range(window[1]):
      end = (batch, i + down, j + across, channels)
      yield lax.slice(images, (0, i, j, 0), end, (1, stride, stride, 1))


def pad(images: jax.Array, padding: int, value: float) -> jax.Array:
  """Returns [B, H + 2 padding, W + 2 padding, C], a value all around."""
  sides = (padding, padding)
  return jnp.pad(images, ((0, 0), sides, sides, (0, 0)), constant_values=value)


def check_window(
  images: jax.Array, window: Sequence[int], stride: int, padding: int
) -> None:
  """Raises ValueError if a setting is out of range or exceeds the images."""
  chex.assert_rank(images, 4)
  chex.assert_type(images, float)
  if stride < 1 or padding < 0 or min(window) < 1:
    raise ValueError(
      "window and stride must be at least 1 and padding at least 0, not"
      f" {window}, {stride} and {padding}."
    )
  for side, extent in zip(images.shape[1:3], window, strict=True):
    if side + 2 * padding < extent:
      raise ValueError(
        f"the window {window} exceeds images {images.shape} padded by"
        f" {padding}."
      )


def _native_max_pool(images: jax.Array, setting: Setting) -> jax.Array:
  window, stride, padding = setting
  sides = (padding, padding)
  return lax.reduce_window(
    images,
    -jnp.inf,
    lax.max,
    (1, *window, 1),
    (1, stride, stride, 1),
    ((0, 0), sides, sides, (0, 0)),
  )


def _winners(images: jax.Array, setting: Setting) -> jax.Array:
  """Returns the place of each window's maximum, int16 [B, h, w, C]."""
  window, stride, padding = setting
  tried = taps(pad(images, padding, -jnp.inf), window, stride)
  best = next(tried)
  winners = jnp.zeros(best.shape, jnp.int16)
  # The first of equals wins, so a later pixel must be strictly larger.
  for number, tap in enumerate(tried, start=1):
    winners = jnp.where(tap > best, jnp.int16(number), winners)
    best = jnp.maximum(best, tap)
  return winners


def _to_winners(
  winners: jax.Array,
  cotangent: jax.Array,
  size: tuple[int, int],
  setting: Setting,
) -> jax.Array:
  """Gives each window's cotangent to its winner: [B, *size, C]."""
  window, stride, padding = setting
  batch, *_, channels = cotangent.shape
  height, width = size

  def take(padded: jax.Array) -> jax.Array:
    total = jnp.zeros(cotangent.shape, cotangent.dtype)
    for number, tap in enumerate(taps(padded, window, stride)):
      total = total + jnp.where(winners == number, tap, 0)
    return total

  sides = (height + 2 * padding, width + 2 * padding)
  like = jax.ShapeDtypeStruct((batch, *sides, channels), cotangent.dtype)
  gradient = jax.linear_transpose(take, like)(cotangent)[0]
  return gradient[:, padding : padding + height, padding : padding + width]


def _own_max_pool_gradient(
  images: jax.Array, cotangent: jax.Array, setting: Setting
) -> jax.Array:
  # In one, XLA would look for each winner once for every tap, and for each of
  # those who read the gradient, such as the sums of a batch normalisation.
  winners = fusion.apart(functools.partial(_winners, setting=setting), images)
  (_, height, width, _) = images.shape
  give = functools.partial(_to_winners, size=(height, width), setting=setting)
  return fusion.apart(give, winners, cotangent)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(images: jax.Array, setting: Setting) -> jax.Array:
  return _native_max_pool(images, setting)


def _max_pool_forward(
  images: jax.Array, setting: Setting
) -> tuple[jax.Array, jax.Array]:
  return _native_max_pool(images, setting), images


def _max_pool_backward(
  setting: Setting, images: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array]:
  def native(images: jax.Array, cotangent: jax.Array) -> jax.Array:
    run = functools.partial(_native_max_pool, setting=setting)
    return jax.vjp(run, images)[1](cotangent)[0]

  own = functools.partial(_own_max_pool_gradient, setting=setting)
  return (lax.platform_dependent(images, cotangent, cpu=own, default=native),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def max_pool(
  images: ArrayLike, window: Pair, stride: int, padding: int = 0
) -> jax.Array:
  """Takes the maximum of each window of pixels.

  Padding counts as minus infinity. Of equal maxima the first in reading order
  takes the whole gradient. For 2x2 blocks `layers.max_pool` is faster.
  Batch meaning: rows are independent.

  Args:
    images: float [B, H, W, C].
    window: side of the window, or (rows, columns), >= 1.
    stride: step of the window in pixels, >= 1.
    padding: pixels added on each side, >= 0 and less than the window.

  Returns:
    The images' dtype, [B, h, w, C], h = (H + 2 padding - rows) // stride + 1.

  Raises:
    ValueError: if a setting is out of range or the window exceeds the images.

  Degenerate input: B == 0 gives an empty result.
  """
  images, window = jnp.asarray(images), pair(window)
  check_window(images, window, stride, padding)
  if padding >= min(window):
    raise ValueError(
      f"padding must be less than the window {window}, not {padding}."
    )
  return _max_pool(images, (window, stride, padding))


def avg_pool(images: ArrayLike, window: Pair, stride: int) -> jax.Array:
  """Takes the mean of each window of pixels, without padding.

  Batch meaning: rows are independent.

  Args:
    images: float [B, H, W, C].
    window: side of the window, or (rows, columns), >= 1.
    stride: step of the window in pixels, >= 1.

  Returns:
    The images' dtype, [B, h, w, C], h = (H - rows) // stride + 1.

  Raises:
    ValueError: if a setting is out of range or the window exceeds the images.

  Degenerate input: B == 0 gives an empty result.
  """
  images, window = jnp.asarray(images), pair(window)
  check_window(images, window, stride, 0)
  total = jnp.float32(0)
  for tap in taps(images, window, stride):
    total = total + tap.astype(jnp.float32)
  return (total / (window[0] * window[1])).astype(images.dtype)


def global_avg_pool(images: ArrayLike) -> jax.Array:
  """Returns the mean over the pixels, float32 [B, C], of float [B, H, W, C]."""
  images = jnp.asarray(images)
  chex.assert_rank(images, 4)
  return jnp.mean(images, axis=(1, 2), dtype=jnp.float32)
