"""Convolution that is fast on CPU, its gradient too and inside `lax.scan`.

Reverse mode and first order; see `encoders.layers`.
"""

import functools
import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Pixels of the result per GEMM of the weight gradient: their patches stay in
# the cache, and the sum, as large as the kernel, is not touched too often.
_CHUNK_PIXELS = 512
# On CPU a result of this many pixels or fewer is formed as one GEMM, and steps
# of two from so few channels to so few features have 2x2 pixels made one.
_FEW_PIXELS = 49
_FEW_CHANNELS, _FEW_FEATURES = 4, 32

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


def _result_size(
  size: Sequence[int],
  window: Sequence[int],
  strides: tuple[int, int],
  pads: Padding,
) -> tuple[int, int]:
  height, width = (
    (size[i] + sum(pads[i]) - window[i]) // strides[i] + 1 for i in (0, 1)
  )
  return height, width


def _gemm_conv(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> jax.Array:
  """One matrix product: of the pixels for 1x1, else of the windows."""
  images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
  rows = _patches(images, kernel.shape[:2], strides)
  product = lax.dot_general(
    rows,
    kernel.reshape(-1, kernel.shape[-1]),
    (((3,), (0,)), ((), ())),
    preferred_element_type=jnp.float32,
  )
  return product.astype(images.dtype)


def _halving_conv(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> jax.Array:
  """Makes 2x2 pixels the channels of one: steps of two become steps of one."""
  (_, *size, _), (*window, _, _) = images.shape, kernel.shape
  halves = [-(-side // 2) for side in window]
  odd = [(0, side % 2) for side in window]
  kernel = jnp.pad(kernel, [*odd, (0, 0), (0, 0)])
  spread = [(0, 0, 0)]
  result = _result_size(size, window, strides, pads)
  for axis in (0, 1):
    before = pads[axis][0]
    # One row more meets zeros of the kernel alone; one less was met by none.
    after = 2 * (result[axis] + halves[axis] - 1) - before - size[axis]
    spread.append((before, after, 0))
  spread.append((0, 0, 0))
  images = lax.pad(images, jnp.zeros((), images.dtype), spread)
  batch, height, width, channels = images.shape
  images = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
  images = images.transpose(0, 1, 3, 2, 4, 5)
  kernel = kernel.reshape(halves[0], 2, halves[1], 2, channels, -1)
  kernel = kernel.transpose(0, 2, 1, 3, 4, 5)
  return _native_conv(
    images.reshape(*images.shape[:3], -1),
    kernel.reshape(*halves, 4 * channels, -1),
    (1, 1),
    ((0, 0), (0, 0)),
  )


def _forward(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> jax.Array:
  """The convolution, on CPU by the fastest of three ways for its shape.

  XLA's own takes there two to three times as long as a matrix product for 1x1
  windows, half as long again for results of a few pixels, and three times as
  long where few channels become few features. (Winograd's products, and 2x2
  pixels made one for more channels, were slower than XLA's own.)
  """
  (_, *size, channels), (*window, _, features) = images.shape, kernel.shape
  if window == [1, 1] or (
    math.prod(_result_size(size, window, strides, pads)) <= _FEW_PIXELS
  ):
    own = _gemm_conv
  elif strides == (2, 2) and (
    channels <= _FEW_CHANNELS and features <= _FEW_FEATURES
  ):
    own = _halving_conv
  else:
    return _native_conv(images, kernel, strides, pads)
  return lax.platform_dependent(
    images,
    kernel,
    cpu=functools.partial(own, strides=strides, pads=pads),
    default=functools.partial(_native_conv, strides=strides, pads=pads),
  )


def _kernel_gradient(
  images: jax.Array,
  cotangent: jax.Array,
  window: Sequence[int],
  strides: tuple[int, int],
  pads: Padding,
) -> jax.Array:
  """Gradient with respect to the kernel, as GEMMs over a few images each."""
  batch, channels, features = len(images), images.shape[-1], cotangent.shape[-1]
  pixels = math.prod(cotangent.shape[1:3])
  size = max(min(_CHUNK_PIXELS // pixels, batch), 1)
  extra = -batch % size
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
    images.reshape(-1, size, *images.shape[1:]),
    cotangent.reshape(-1, size, *cotangent.shape[1:]),
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
  return _forward(padded, flipped, (1, 1), ((0, 0), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> jax.Array:
  return _forward(images, kernel, strides, pads)


def _conv_forward(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> tuple[jax.Array, Residuals]:
  return _forward(images, kernel, strides, pads), (images, kernel)


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
  On CPU a 1x1 window, a result of a few pixels and steps of two over few
  channels are matrix products or convolutions of another shape; the gradient is
  our own: GEMMs over the patches of 8 images at a time for the kernel, a plain
  convolution for the images.
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
