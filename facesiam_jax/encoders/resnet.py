"""ResNet in torchvision's layout, with an embedding for its classes.

Version 1.5: the bottleneck's stride is in its 3x3 convolution. Names of
parameters are torchvision's with "_" for "." inside a name: layer1.0.conv1
.weight is layer1_0/conv1/kernel, downsample.0 is downsample_0.
"""

from typing import Any

import jax
from flax import linen as nn

from facesiam_jax.encoders import blocks, layers

_EXPANSION = 4


def _conv(features: int, side: int, stride: int, name: str) -> layers.Conv:
  margin = (side // 2, side // 2)
  return layers.Conv(
    features,
    (side, side),
    stride,
    (margin, margin),
    use_bias=False,
    name=name,
  )


class _Residual(nn.Module):
  """What both blocks share; `_branch` is theirs."""

  features: int
  stride: int
  axis_name: str | None
  dtype: Any

  def _norm(self, name: str) -> blocks.BatchNorm:
    return blocks.BatchNorm(
      axis_name=self.axis_name, dtype=self.dtype, name=name
    )

  def _branch(self, x: jax.Array, train: bool) -> jax.Array:
    raise NotImplementedError

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    branch = self._branch(x, train)
    if self.stride > 1 or x.shape[-1] != branch.shape[-1]:
      x = _conv(branch.shape[-1], 1, self.stride, "downsample_0")(x)
      x = self._norm("downsample_1")(x, train=train)
    return nn.relu(x + branch)


class _Basic(_Residual):
  """Two 3x3 convolutions."""

  def _branch(self, x: jax.Array, train: bool) -> jax.Array:
    x = _conv(self.features, 3, self.stride, "conv1")(x)
    made = blocks.relu_later(self._norm("bn1").later(x, train=train))
    x = _conv(self.features, 3, 1, "conv2")(made)
    return self._norm("bn2")(x, train=train)


class _Bottleneck(_Residual):
  """1x1, 3x3 with the stride, 1x1 to four times the features."""

  def _branch(self, x: jax.Array, train: bool) -> jax.Array:
    x = _conv(self.features, 1, 1, "conv1")(x)
    made = blocks.relu_later(self._norm("bn1").later(x, train=train))
    x = _conv(self.features, 3, self.stride, "conv2")(made)
    made = blocks.relu_later(self._norm("bn2").later(x, train=train))
    x = _conv(_EXPANSION * self.features, 1, 1, "conv3")(made)
    return self._norm("bn3")(x, train=train)


class ResNet(nn.Module):
  """Residual network: 7x7 stem, four stages of blocks, mean, dense embedding.

  The embedding is not normalised. With dim = 1000 it is torchvision's network
  and takes its checkpoints whole.

  Attributes:
    stage_sizes: blocks of each stage; the second and later halve the image.
    bottleneck: True for blocks of three convolutions (ResNet-50 and deeper),
      False for two 3x3 ones (ResNet-18 and 34).
    width: channels of the stem and the first stage; doubled at each stage.
    dim: size of the embedding.
    dtype: compute dtype; in bfloat16 the embedding of random weights is within
      5 % (ResNet-50; 1 % for ResNet-18) of float32's, as a vector.
    remat: whether the backward pass computes the blocks' insides again.
    axis_name: mesh axis over which batch statistics are averaged.

  References: He et al. 2016, Deep Residual Learning for Image Recognition;
    torchvision.models.resnet.
  """

  stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
  bottleneck: bool = True
  width: int = 64
  dim: int = 256
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
      images: preprocessed faces, float32 [B, H, W, C].
      train: whether to normalise by the batch's own statistics.
      rows: not used: there is no dropout.

    Returns:
      Embeddings, float32 [B, dim].

    Raises:
      ValueError: if the images are not [B, H, W, C] or smaller than the
        strides of the stages, or the dtype is none to compute in.
    """
    del rows
    # The stem quarters the image, each stage but the first halves it.
    blocks.check_images(images, smallest=2 ** (1 + len(self.stage_sizes)))
    block = _Bottleneck if self.bottleneck else _Basic
    if self.remat:
      block = nn.remat(block, static_argnums=(2,))
    common = {"axis_name": self.axis_name, "dtype": self.dtype}
    x = images.astype(blocks.compute_dtype(self.dtype))
    x = _conv(self.width, 7, 2, "conv1")(x)
    x = nn.relu(blocks.BatchNorm(**common, name="bn1")(x, train=train))
    x = blocks.max_pool(x, 3, 2, 1)
    for stage, size in enumerate(self.stage_sizes):
      for number in range(size):
        stride = 2 if stage > 0 and number == 0 else 1
        name = f"layer{stage + 1}_{number}"
        make = block(self.width * 2**stage, stride, **common, name=name)
        x = make(x, train)
    x = blocks.global_avg_pool(x)
    return nn.Dense(self.dim, name="fc")(x)
