"""MobileFaceNet, a network for small machines, in insightface's layout.

Names of parameters are insightface's, a number joined to the name before it:
layers.3.layers.0.layers.1.layers.2.weight is
layers_3/layers_0/layers_1/layers_2/slope.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from facesiam_jax.encoders import blocks, layers
from facesiam_jax.encoders.initializers import he_normal


class _GroupedConv(nn.Module):
  """3x3 convolution within groups of neighbouring channels.

  Parameter: "kernel" [3, 3, m, C] for groups of m channels; output channel c
  reads the group that channel c of the input is in. A sum of m depthwise
  convolutions, since XLA's own is very slow on CPU.
  """

  groups: int

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    channels = images.shape[-1]
    size = channels // self.groups
    shape = (3, 3, size, channels)
    kernel = layers.parameter(self, "kernel", he_normal, shape)
    kernel = kernel.astype(images.dtype)
    grouped = images.reshape(*images.shape[:3], self.groups, size)
    by_group = kernel.reshape(3, 3, size, self.groups, size)
    outputs = jnp.zeros_like(images)
    for turn in range(size):
      # Channel j of a group meets channel j + turn, around the end.
      turned = jnp.roll(grouped, -turn, axis=-1).reshape(images.shape)
      weights = jnp.stack(
        [by_group[:, :, (j + turn) % size, :, j] for j in range(size)], -1
      )
      outputs = outputs + blocks.depthwise_conv(
        turned, weights.reshape(3, 3, 1, channels), padding=1
      )
    return outputs


class _ConvBlock(nn.Module):
  """A convolution, batch normalisation and, unless `linear`, PReLU."""

  conv: Any
  norm: dict[str, Any]
  train: bool
  linear: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = self.conv.copy(name="layers_0")(x)
    norm = blocks.BatchNorm(**self.norm, name="layers_1")
    x = norm(x, train=self.train)
    return x if self.linear else blocks.PReLU(name="layers_2")(x)


def _conv(features: int, side: int = 1, stride: int = 1) -> layers.Conv:
  margin = (side // 2, side // 2)
  return layers.Conv(
    features,
    (side, side),
    stride,
    (margin, margin),
    use_bias=False,
    parent=None,
  )


class _Bottleneck(nn.Module):
  """1x1 to `inner` channels, 3x3 depthwise with the stride, 1x1 to `features`.

  insightface's DepthWise. Adds its input where `residual`.
  """

  features: int
  inner: int
  norm: dict[str, Any]
  train: bool
  stride: int = 1
  residual: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    depthwise = blocks.DepthwiseConv(3, self.stride, 1, parent=None)
    branch = x
    for number, conv in enumerate(
      (_conv(self.inner), depthwise, _conv(self.features))
    ):
      branch = _ConvBlock(
        conv,
        self.norm,
        self.train,
        linear=number == 2,
        name=f"layers_{number}",
      )(branch)
    return x + branch if self.residual else branch


class _Stage(nn.Module):
  """`count` bottlenecks that keep the size; insightface's Residual."""

  count: int
  inner: int
  norm: dict[str, Any]
  train: bool
  remat: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    block = nn.remat(_Bottleneck) if self.remat else _Bottleneck
    for number in range(self.count):
      x = block(
        x.shape[-1],
        self.inner,
        self.norm,
        self.train,
        residual=True,
        name=f"layers_{number}",
      )(x)
    return x


class _Head(nn.Module):
  """A weighted sum of all pixels of each channel, then the embedding."""

  dim: int
  norm: dict[str, Any]
  train: bool

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    everywhere = blocks.DepthwiseConv(
      (x.shape[1], x.shape[2]), 1, 0, parent=None
    )
    x = _ConvBlock(
      everywhere, self.norm, self.train, linear=True, name="layers_0"
    )(x)
    x = x.reshape(len(x), -1)
    x = nn.Dense(self.dim, use_bias=False, dtype=x.dtype, name="layers_2")(x)
    norm = blocks.BatchNorm(
      **{**self.norm, "dtype": "float32"}, name="layers_3"
    )
    return norm(x, train=self.train)


class MobileFaceNet(nn.Module):
  """Inverted bottlenecks with PReLU and a global depthwise convolution.

  The embedding is not of unit length; its last step is a batch normalisation.
  scale = 1 and dim = 128 are the paper's network (221 million multiply-adds,
  0.99 million parameters); insightface doubles the channels between blocks and
  embeds into 512 numbers.

  Attributes:
    stage_sizes: blocks before the first halving (1: one convolution) and after
      each of the three.
    width: unit of all widths: 64 in the paper.
    scale: factor of the channels that blocks hand on, not of their insides.
    size: height and width of the faces, pixels, a multiple of 16.
    dim: size of the embedding.
    dtype: compute dtype; in bfloat16 the embedding of random weights is within
      5 % of float32's, as a vector.
    remat: whether the backward pass computes the residual blocks' insides
      again.
    axis_name: mesh axis over which batch statistics are averaged.

  References: Chen et al. 2018, MobileFaceNets; insightface, arcface_torch.
  """

  stage_sizes: tuple[int, int, int, int] = (1, 4, 6, 2)
  width: int = 64
  scale: int = 2
  size: int = 112
  dim: int = 512
  dtype: Any = "float32"
  remat: bool = False
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    rows: jax.Array | None = None,
  ) -> jax.Array:
    """Embeds faces.

    Args:
      images: preprocessed faces, float32 [B, size, size, C].
      train: whether to normalise by the batch's own statistics.
      rows: not used: there is no dropout.

    Returns:
      Embeddings, float32 [B, dim].

    Raises:
      ValueError: if the images are of another size, or the dtype is none to
        compute in.
    """
    del rows
    blocks.check_images(images, size=self.size)
    unit, wide = self.width, self.width * self.scale
    common: dict[str, Any] = {
      "norm": {"axis_name": self.axis_name, "dtype": self.dtype},
      "train": train,
    }
    grouped = _GroupedConv(unit, parent=None)
    first, *later = self.stage_sizes
    stage = lambda count, inner, number: _Stage(
      count, inner, **common, remat=self.remat, name=f"layers_{number}"
    )
    x = images.astype(blocks.compute_dtype(self.dtype))
    x = _ConvBlock(_conv(wide, 3, 2), **common, name="layers_0")(x)
    if first == 1:
      x = _ConvBlock(grouped, **common, name="layers_1")(x)
    else:
      x = stage(first, 2 * unit, 1)(x)
    # (channels handed on, inside the halving block, inside the others)
    plan = ((wide, 2, 2), (2 * wide, 4, 4), (2 * wide, 8, 4))
    for number, (features, halving, inner) in enumerate(plan):
      x = _Bottleneck(
        features,
        halving * unit,
        **common,
        stride=2,
        name=f"layers_{2 + 2 * number}",
      )(x)
      x = stage(later[number], inner * unit, 3 + 2 * number)(x)
    x = _ConvBlock(_conv(8 * unit), **common, name="conv_sep")(x)
    return _Head(self.dim, **common, name="features")(x)
