"""What the families of encoders share: normalisation, pooling, depthwise.

Padding is explicit, the same on all four sides, as PyTorch's and dlib's
networks have it. Parameters and statistics are float32 whatever the compute
dtype; sums over pixels are formed in float32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.tree_util import Partial

from facesiam_jax.encoders import channels, layers
from facesiam_jax.encoders.depthwise import depthwise_conv
from facesiam_jax.encoders.initializers import he_normal
from facesiam_jax.encoders.windows import (
  Pair,
  avg_pool,
  global_avg_pool,
  max_pool,
  pair,
)

__all__ = [
  "Affine",
  "BatchNorm",
  "DepthwiseConv",
  "PReLU",
  "avg_pool",
  "check_images",
  "compute_dtype",
  "depthwise_conv",
  "global_avg_pool",
  "max_pool",
  "relu_later",
]

_DTYPES = ("float32", "bfloat16", "float16")


def compute_dtype(dtype: Any) -> jnp.dtype:
  """Returns the dtype that a network computes in.

  Args:
    dtype: "float32", "bfloat16" or "float16", by name or as a dtype.

  Returns:
    The dtype.

  Raises:
    ValueError: for anything else.
  """
  try:
    found = jnp.dtype(dtype)
  except TypeError:
    found = None
  if found is None or found.name not in _DTYPES:
    raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, not {dtype}.")
  return found


def check_images(
  images: jax.Array,
  *,
  channels: int | None = None,
  smallest: int | None = None,
  size: Pair | None = None,
) -> None:
  """Refuses images that an encoder cannot take.

  Args:
    images: what it was called with.
    channels: how many it needs; None for any number.
    smallest: the least height and width in pixels; None for any.
    size: the only height and width it takes, one number for squares; None
      for any.

  Raises:
    ValueError: in one sentence, with the shape and what is needed.
  """
  if images.ndim != 4:
    raise ValueError(f"images must be [B, H, W, C], not {images.shape}.")
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f"images must be float, not {images.dtype}.")
  _, *sides, found = images.shape
  if channels is not None and found != channels:
    raise ValueError(
      f"this encoder takes images of {channels} channels, not {images.shape}."
    )
  if size is not None and tuple(sides) != pair(size):
    height, width = pair(size)
    raise ValueError(
      f"this encoder takes images of {height} x {width} pixels, not"
      f" {images.shape}."
    )
  if smallest is not None and min(sides) < smallest:
    raise ValueError(
      f"this encoder needs images of {smallest} x {smallest} pixels or more,"
      f" not {images.shape}."
    )


def _normalized(values: jax.Array, *numbers: jax.Array) -> jax.Array:
  return channels.normalize(values, *numbers).astype(values.dtype)


def _relu(made: Partial) -> jax.Array:
  return nn.relu(made())


def relu_later(made: Partial) -> Partial:
  """Returns what makes the ReLU of what `made` makes."""
  return Partial(_relu, made)


class BatchNorm(nn.Module):
  """Batch normalisation over rows and pixels, of the global batch.

  Parameters: "scale" and "bias" [C]; statistics "mean" and "var" [C]. The
  variance is the biased one in the running statistics too, where PyTorch
  keeps the unbiased: of B h w pixels they differ by 1 / (B h w). The values
  are those of `flax.linen.BatchNorm`; see `channels` for why it is written
  here.

  Attributes:
    epsilon: added to the variance.
    momentum: share of the old running statistics at each step (PyTorch's
      momentum is 1 minus this).
    use_scale: whether there is a "scale".
    use_bias: whether there is a "bias".
    axis_name: mesh axis whose devices' statistics are averaged in training.
    dtype: of the result.

  References: Ioffe and Szegedy 2015, Batch normalization, algorithms 1 and 2.
  """

  epsilon: float = 1e-5
  momentum: float = 0.9
  use_scale: bool = True
  use_bias: bool = True
  axis_name: str | None = None
  dtype: Any = "float32"

  def __call__(self, inputs: jax.Array, *, train: bool) -> jax.Array:
    """Normalises inputs [B, ..., C]; by the batch's own values in training."""
    numbers = self.numbers(inputs, train=train)
    return channels.normalize(inputs, *numbers).astype(self.dtype)

  def later(self, inputs: jax.Array, *, train: bool) -> Partial:
    """Returns what makes the normalised inputs, for `layers.Conv` to call."""
    numbers = self.numbers(inputs, train=train)
    return Partial(_normalized, inputs.astype(self.dtype), *numbers)

  @nn.compact
  def numbers(
    self, inputs: jax.Array, *, train: bool
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns mean, factor and offset of inputs [B, ..., C], float32 [C]."""
    size = inputs.shape[-1]
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    kept_mean = self.variable("batch_stats", "mean", jnp.zeros, (size,))
    kept_var = self.variable("batch_stats", "var", jnp.ones, (size,))
    mean, var = kept_mean.value, kept_var.value
    if train:
      mean, var = self._statistics(inputs)
      if not self.is_initializing():
        share = self.momentum
        kept_mean.value = share * kept_mean.value + (1 - share) * mean
        kept_var.value = share * kept_var.value + (1 - share) * var
    factor = lax.rsqrt(var + self.epsilon)
    if self.use_scale:
      factor = factor * layers.parameter(self, "scale", ones, (size,))
    offset = jnp.zeros((size,))
    if self.use_bias:
      offset = layers.parameter(self, "bias", zeros, (size,))
    return mean, factor, offset

  def _statistics(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance by channel, float32 [C] each."""
    inputs = inputs.astype(jnp.float32)
    count = max(1, inputs.size // inputs.shape[-1])
    sums = [channels.channel_sum(x) for x in (inputs, jnp.square(inputs))]
    means = jnp.stack(sums) / count
    if self.axis_name is not None and not self.is_initializing():
      means = lax.pmean(means, self.axis_name)
    mean, of_squares = means
    # Rounding can leave the difference below 0.
    return mean, jnp.maximum(of_squares - jnp.square(mean), 0.0)


class PReLU(nn.Module):
  """max(0, x) + slope * min(0, x), a slope for each channel.

  Parameter: "slope" [C], 0.25 at first.
  """

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Returns the dtype and shape of inputs [..., C]."""
    quarter = nn.initializers.constant(0.25)
    slope = layers.parameter(self, "slope", quarter, (inputs.shape[-1],))
    slope = channels.spread(slope.astype(inputs.dtype), inputs.shape)
    return jnp.where(inputs >= 0, inputs, slope * inputs)


class Affine(nn.Module):
  """scale * x + bias by channel: a batch normalisation already folded.

  Parameters: "scale" [C], ones at first; "bias" [C], zeros.
  """

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    """Returns the dtype and shape of inputs [..., C]."""
    shape = (inputs.shape[-1],)
    scale = layers.parameter(self, "scale", nn.initializers.ones, shape)
    bias = layers.parameter(self, "bias", nn.initializers.zeros, shape)
    scale, bias = (
      channels.spread(numbers.astype(inputs.dtype), inputs.shape)
      for numbers in (scale, bias)
    )
    return inputs * scale + bias


class DepthwiseConv(nn.Module):
  """Convolution of each channel by itself; see `depthwise_conv`.

  Parameters: "kernel" [kh, kw, 1, C], He-normal; "bias" [C], zeros, absent
  when `use_bias` is False.

  Attributes:
    kernel_size: side of the window, or (rows, columns).
    strides: step of the window in pixels.
    padding: zeros added on each side, in pixels.
    use_bias: whether to add a bias.
  """

  kernel_size: Pair = 3
  strides: int = 1
  padding: int = 1
  use_bias: bool = False

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns [B, h, w, C] of images [B, H, W, C], in their dtype."""
    size = images.shape[-1]
    # The fan-in is the window: a channel sees no other.
    shape = (*pair(self.kernel_size), 1, size)
    kernel = layers.parameter(self, "kernel", he_normal, shape)
    outputs = depthwise_conv(
      images,
      kernel.astype(images.dtype),
      stride=self.strides,
      padding=self.padding,
    )
    if self.use_bias:
      zeros = nn.initializers.zeros
      bias = layers.parameter(self, "bias", zeros, (size,))
      outputs = outputs + bias.astype(outputs.dtype).reshape(1, 1, 1, -1)
    return outputs
