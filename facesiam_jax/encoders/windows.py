"""Functions of moving windows: pooling and depthwise convolution.

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

from facesiam_jax import warping

Pair = int | tuple[int, int]
Setting = tuple[tuple[int, int], int, int]


def pair(value: Pair) -> tuple[int, int]:
  """Returns (value, value) for one number, and a pair as it is."""
  return (value, value) if isinstance(value, int) else (value[0], value[1])


def _taps(
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


def _padded(images: jax.Array, padding: int, value: float) -> jax.Array:
  sides = (padding, padding)
  return jnp.pad(images, ((0, 0), sides, sides, (0, 0)), constant_values=value)


def _check_window(
  images: jax.Array, window: Sequence[int], stride: int, padding: int
) -> None:
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


def _own_max_pool_gradient(
  images: jax.Array, cotangent: jax.Array, setting: Setting
) -> jax.Array:
  window, stride, padding = setting
  padded = _padded(images, padding, -jnp.inf)
  best = jnp.full(cotangent.shape, -jnp.inf, images.dtype)
  winner = jnp.full(cotangent.shape, -1, jnp.int32)
  # The first of equals wins, so a later pixel must be strictly larger.
  for number, tap in enumerate(_taps(padded, window, stride)):
    winner = jnp.where(tap > best, number, winner)
    best = jnp.maximum(best, tap)

  def take(padded: jax.Array) -> jax.Array:
    total = jnp.zeros(cotangent.shape, cotangent.dtype)
    for number, tap in enumerate(_taps(padded, window, stride)):
      total = total + jnp.where(winner == number, tap, 0)
    return total

  gradient = jax.linear_transpose(take, padded)(cotangent)[0]
  height, width = images.shape[1:3]
  # Or XLA makes nine images for each of those who read it, such as the sums of
  # a batch normalisation.
  return warping.settled(
    gradient[:, padding : padding + height, padding : padding + width]
  )


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
  _check_window(images, window, stride, padding)
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
  _check_window(images, window, stride, 0)
  total = jnp.float32(0)
  for tap in _taps(images, window, stride):
    total = total + tap.astype(jnp.float32)
  return (total / (window[0] * window[1])).astype(images.dtype)


def global_avg_pool(images: ArrayLike) -> jax.Array:
  """Returns the mean over the pixels, float32 [B, C], of float [B, H, W, C]."""
  images = jnp.asarray(images)
  chex.assert_rank(images, 4)
  return jnp.mean(images, axis=(1, 2), dtype=jnp.float32)


def _native_depthwise(
  images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
  return lax.conv_general_dilated(
    images,
    kernel,
    (stride, stride),
    ((padding, padding),) * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=images.shape[-1],
  )


def _shifted(
  images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
  """The same as sums of shifted images: XLA's own is very slow on CPU."""
  padded = _padded(images, padding, 0).astype(jnp.float32)
  weights = kernel.astype(jnp.float32).reshape(-1, 1, 1, 1, kernel.shape[-1])
  total = jnp.float32(0)
  taps = _taps(padded, kernel.shape[:2], stride)
  for weight, tap in zip(weights, taps, strict=True):
    total = total + weight * tap
  return total.astype(images.dtype)


def _depthwise_forward(
  images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
  return lax.platform_dependent(
    images,
    kernel,
    cpu=functools.partial(_shifted, stride=stride, padding=padding),
    default=functools.partial(
      _native_depthwise, stride=stride, padding=padding
    ),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(
  images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
  return _depthwise_forward(images, kernel, stride, padding)


def _depthwise_saving(
  images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _depthwise_forward(images, kernel, stride, padding), (images, kernel)


def _depthwise_kernel_gradient(
  padded: jax.Array,
  cotangent: jax.Array,
  window: Sequence[int],
  stride: int,
) -> jax.Array:
  """The sums of all taps in one pass over each image.

  A sum a tap reads the images as often as there are taps: two to four times as
  slow (3x3, two cores).
  """
  taps = list(_taps(padded.astype(jnp.float32), window, stride))
  weights = cotangent.astype(jnp.float32)
  sums = lax.reduce(
    tuple(tap * weights for tap in taps),
    (jnp.float32(0),) * len(taps),
    lambda some, more: tuple(map(jnp.add, some, more)),
    (1, 2),
  )
  return jnp.stack([jnp.sum(images, axis=0) for images in sums]).reshape(
    *window, 1, padded.shape[-1]
  )


def _own_depthwise_gradients(
  images: jax.Array,
  kernel: jax.Array,
  cotangent: jax.Array,
  stride: int,
  padding: int,
) -> tuple[jax.Array, jax.Array]:
  """For the images shifted multiplies again, the kernel flipped."""
  window = kernel.shape[:2]
  kernel_gradient = _depthwise_kernel_gradient(
    _padded(images, padding, 0), cotangent, window, stride
  ).astype(kernel.dtype)
  if cotangent.shape[1:3] == (1, 1):
    # One window an image: no sums.
    sides = [
      (-padding, images.shape[1 + axis] + padding - window[axis], 0)
      for axis in (0, 1)
    ]
    zero = jnp.zeros((), cotangent.dtype)
    once = cotangent * kernel.reshape(1, *window, -1)
    around = [(0, 0, 0), *sides, (0, 0, 0)]
    return lax.pad(once, zero, around), kernel_gradient
  spread = [(0, 0, 0)]
  for axis in (0, 1):
    before = window[axis] - 1 - padding
    extent = (cotangent.shape[1 + axis] - 1) * stride + 1
    after = images.shape[1 + axis] + padding - extent
    spread.append((before, after, stride - 1))
  spread.append((0, 0, 0))
  # Padding may be negative: it crops.
  dilated = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), spread)
  return _shifted(dilated, kernel[::-1, ::-1], 1, 0), kernel_gradient


def _depthwise_backward(
  stride: int,
  padding: int,
  residuals: tuple[jax.Array, jax.Array],
  cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  def native(
    images: jax.Array, kernel: jax.Array, cotangent: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    run = functools.partial(_native_depthwise, stride=stride, padding=padding)
    return jax.vjp(run, images, kernel)[1](cotangent)

  own = functools.partial(
    _own_depthwise_gradients, stride=stride, padding=padding
  )
  return lax.platform_dependent(*residuals, cotangent, cpu=own, default=native)


_depthwise.defvjp(_depthwise_saving, _depthwise_backward)


def depthwise_conv(
  images: ArrayLike, kernel: ArrayLike, *, stride: int = 1, padding: int = 0
) -> jax.Array:
  """Convolves each channel with a kernel of its own, not flipped.

    out[b, y, x, c] =
      sum_ij images[b, y s + i - p, x s + j - p, c] kernel[i, j, 0, c]
  On CPU it is a sum of shifted images, and so are its gradients.
  Batch meaning: rows are independent.

  Args:
    images: float [B, H, W, C].
    kernel: float [kh, kw, 1, C], of the images' dtype.
    stride: step of the window in pixels, >= 1.
    padding: zeros added on each side, in pixels, >= 0.

  Returns:
    The images' dtype, [B, h, w, C], h = (H + 2 padding - kh) // stride + 1.

  Raises:
    ValueError: if the kernel does not fit the channels, a setting is out of
      range, or the window exceeds the padded images.

  Degenerate input: B == 0 gives an empty result and a zero kernel gradient.
  References: Howard et al. 2017, MobileNets.
  """
  images, kernel = jnp.asarray(images), jnp.asarray(kernel)
  chex.assert_rank(kernel, 4)
  _check_window(images, kernel.shape[:2], stride, padding)
  if kernel.shape[2:] != (1, images.shape[-1]):
    raise ValueError(
      f"images {images.shape} need a kernel [kh, kw, 1, {images.shape[-1]}],"
      f" not {kernel.shape}."
    )
  return _depthwise(images, kernel, stride, padding)
