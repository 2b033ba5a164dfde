"""Depthwise convolution: each channel with a kernel of its own.

On CPU it and its gradient are written here, where XLA's own are slow; GPU and
TPU keep the native ones. Reverse mode, first order.
"""

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from facesiam_jax import fusion
from facesiam_jax.encoders import windows


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
  padded = windows.pad(images, padding, 0).astype(jnp.float32)
  weights = kernel.astype(jnp.float32).reshape(-1, 1, 1, 1, kernel.shape[-1])
  total = jnp.float32(0)
  taps = windows.taps(padded, kernel.shape[:2], stride)
  for weight, tap in zip(weights, taps, strict=True):
    total = total + weight * tap
  return total.astype(images.dtype)


def _depthwise_forward(
  images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
  def own(images: jax.Array, kernel: jax.Array) -> jax.Array:
    # Or what made the images is made again for each tap.
    run = functools.partial(_shifted, stride=stride, padding=padding)
    return fusion.apart(run, images, kernel)

  native = functools.partial(_native_depthwise, stride=stride, padding=padding)
  return lax.platform_dependent(images, kernel, cpu=own, default=native)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(
  images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
  return _depthwise_forward(images, kernel, stride, padding)


def _depthwise_saving(
  images: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return _depthwise_forward(images, kernel, stride, padding), (images, kernel)


def _kernel_gradient(
  images: jax.Array,
  cotangent: jax.Array,
  window: Sequence[int],
  stride: int,
  padding: int,
) -> jax.Array:
  """The sums of all taps in one pass over each image.

  A sum a tap reads the images as often as there are taps: two to four times as
  slow (3x3, two cores).
  """
  padded = windows.pad(images, padding, 0).astype(jnp.float32)
  taps = list(windows.taps(padded, window, stride))
  weights = cotangent.astype(jnp.float32)
  sums = lax.reduce(
    tuple(tap * weights for tap in taps),
    (jnp.float32(0),) * len(taps),
    lambda some, more: tuple(map(jnp.add, some, more)),
    (1, 2),
  )
  return jnp.stack([jnp.sum(images, axis=0) for images in sums]).reshape(
    *window, 1, images.shape[-1]
  )


def _image_gradient(
  kernel: jax.Array,
  cotangent: jax.Array,
  size: Sequence[int],
  stride: int,
  padding: int,
) -> jax.Array:
  """Shifted multiplies of the cotangent, the kernel flipped."""
  window = kernel.shape[:2]
  zero = jnp.zeros((), cotangent.dtype)
  if cotangent.shape[1:3] == (1, 1):
    # One window an image: no sums.
    sides = [
      (-padding, size[axis] + padding - window[axis], 0) for axis in (0, 1)
    ]
    once = cotangent * kernel.reshape(1, *window, -1)
    return lax.pad(once, zero, [(0, 0, 0), *sides, (0, 0, 0)])
  spread = [(0, 0, 0)]
  for axis in (0, 1):
    before = window[axis] - 1 - padding
    extent = (cotangent.shape[1 + axis] - 1) * stride + 1
    spread.append((before, size[axis] + padding - extent, stride - 1))
  spread.append((0, 0, 0))
  # Padding may be negative: it crops.
  dilated = lax.pad(cotangent, zero, spread)
  return _shifted(dilated, kernel[::-1, ::-1], 1, 0)


def _own_gradients(
  images: jax.Array,
  kernel: jax.Array,
  cotangent: jax.Array,
  stride: int,
  padding: int,
) -> tuple[jax.Array, jax.Array]:
  window = kernel.shape[:2]
  for_kernel = fusion.apart(
    functools.partial(
      _kernel_gradient, window=window, stride=stride, padding=padding
    ),
    images,
    cotangent,
  )
  for_images = fusion.apart(
    functools.partial(
      _image_gradient,
      size=images.shape[1:3],
      stride=stride,
      padding=padding,
    ),
    kernel,
    cotangent,
  )
  return for_images, for_kernel.astype(kernel.dtype)


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

  own = functools.partial(_own_gradients, stride=stride, padding=padding)
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
  windows.check_window(images, kernel.shape[:2], stride, padding)
  if kernel.shape[2:] != (1, images.shape[-1]):
    raise ValueError(
      f"images {images.shape} need a kernel [kh, kw, 1, {images.shape[-1]}],"
      f" not {kernel.shape}."
    )
  return _depthwise(images, kernel, stride, padding)
