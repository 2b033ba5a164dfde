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

from facesiam_jax import fusion

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# On CPU a result of this many pixels or fewer, of the whole batch, is formed as
# one matrix product.
_FEW_PIXELS = 49

# Of these releases of JAX the options below are known to help; others may not
# have them, and XLA refuses what it does not know.
_RELEASES = ((0, 10), (0, 12))

Padding = tuple[tuple[int, int], tuple[int, int]]
Residuals = tuple[jax.Array, jax.Array]


def compiler_options(platform: str | None = None) -> dict[str, str]:
  """Returns the options of XLA under which networks with convolutions run fast.

  For whoever jits: `jax.jit(step, compiler_options=compiler_options())`. On CPU
  they leave products to YNNPACK and convolutions to Eigen, whose forward takes
  0.5 to 1.0 of YNNPACK's time (jax 0.10.2, 3x3, two cores) and whose gradient
  with respect to the kernel 0.3 to 0.8.

  Args:
    platform: "cpu", "gpu" or "tpu"; None for JAX's default.

  Returns:
    Names and values for `compiler_options` of `jax.jit` at the outermost; empty
    for other platforms than CPU, and for releases of JAX that this was not
    measured with.
  """
  if platform is None:
    platform = jax.default_backend()
  oldest, newest = _RELEASES
  if platform != "cpu" or not oldest <= jax.__version_info__[:2] <= newest:
    return {}
  return {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
  }


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


def _forward(
  images: jax.Array, kernel: jax.Array, strides: tuple[int, int], pads: Padding
) -> jax.Array:
  """The convolution; on CPU a matrix product for 1x1 windows and few pixels.

  Of one face, 3x3 over 7x7 pixels and 256 channels takes 0.5 to 0.7 of XLA's
  own; 1x1 takes as long, and half as long under XLA's default options.
  """
  (batch, *size, _), (*window, _, _) = images.shape, kernel.shape
  pixels = batch * math.prod(_result_size(size, window, strides, pads))
  if window != [1, 1] and pixels > _FEW_PIXELS:
    return _native_conv(images, kernel, strides, pads)
  return lax.platform_dependent(
    images,
    kernel,
    cpu=functools.partial(_gemm_conv, strides=strides, pads=pads),
    default=functools.partial(_native_conv, strides=strides, pads=pads),
  )


def _kernel_gradient(
  images: jax.Array,
  cotangent: jax.Array,
  window: Sequence[int],
  strides: tuple[int, int],
  pads: Padding,
) -> jax.Array:
  """Gradient with respect to the kernel: a convolution over the batch.

  The channels are its images, the batch is what it sums over, the cotangent
  its kernel. XLA's own form of it takes a hundred times as long in a loop.
  For 1x1 windows one matrix product takes a half to a third of that.
  """
  if tuple(window) == (1, 1):
    return _gemm_kernel_gradient(images, cotangent, strides, pads)
  sides, around = [], []
  for axis in (0, 1):
    met = (cotangent.shape[1 + axis] - 1) * strides[axis] + window[axis]
    before = pads[axis][0]
    # Rows that no window met are left out, or they would give further taps.
    sides.append(min(images.shape[1 + axis], met - before))
    around.append((before, met - before - sides[-1]))
  gradient = lax.conv_general_dilated(
    images[:, : sides[0], : sides[1]].transpose(3, 1, 2, 0),
    cotangent.transpose(1, 2, 0, 3),
    (1, 1),
    around,
    rhs_dilation=strides,
    dimension_numbers=_LAYOUT,
    preferred_element_type=jnp.float32,
  )
  return gradient.transpose(1, 2, 0, 3)


def _gemm_kernel_gradient(
  images: jax.Array,
  cotangent: jax.Array,
  strides: tuple[int, int],
  pads: Padding,
) -> jax.Array:
  (_, *_, channels), features = images.shape, cotangent.shape[-1]
  images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
  product = lax.dot_general(
    _patches(images, (1, 1), strides).reshape(-1, channels),
    cotangent.reshape(-1, features),
    (((0,), (0,)), ((), ())),
    preferred_element_type=jnp.float32,
  )
  return product.reshape(1, 1, channels, features)


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
  zero = jnp.zeros((), cotangent.dtype)
  flipped = kernel[::-1, ::-1].swapaxes(2, 3)
  run = functools.partial(_forward, strides=(1, 1), pads=((0, 0), (0, 0)))
  # Padding may be negative (it crops), which a convolution's own may not.
  if kernel.shape[:2] == (1, 1):
    # No products with the zeros in between.
    return lax.pad(run(cotangent, flipped), zero, spread)
  return run(lax.pad(cotangent, zero, spread), flipped)


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

    def kernel_gradient(images: jax.Array, cotangent: jax.Array) -> jax.Array:
      return _kernel_gradient(images, cotangent, window, strides, pads)

    # Or what made the images is made again in the order of the transposed.
    for_kernel = fusion.apart(kernel_gradient, images, cotangent)
    return (
      _image_gradient(kernel, cotangent, size, strides, pads),
      for_kernel.astype(kernel.dtype),
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
  On CPU a 1x1 window and a result of a few pixels are matrix products, and the
  gradient is our own: plain convolutions, of which XLA's are also fast inside
  `lax.scan`; jit with `compiler_options` to have the fastest of XLA's.
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
