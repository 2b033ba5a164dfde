"""The residual network of dlib's face recognition: 150x150 RGB to 128 numbers.

Every convolution has a bias and an affine map by channel (the batch
normalisation it was trained with, folded), and a stage that halves the image
has no convolution in its shortcut: average pooling, and zeros where sizes and
channels do not meet.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from facesiam_jax.encoders import blocks, channels, layers
from facesiam_jax.encoders.initializers import he_normal


def add_padded(a: jax.Array, b: jax.Array) -> jax.Array:
  """Adds images of different sizes, zeros where one of them has no pixel.

  What dlib's `add_prev` layer does: both are put into the top left corner, and
  the first channels, of an array that holds either.
  Batch meaning: rows are independent.

  Args:
    a: float [B, H, W, C].
    b: float [B, h, w, c].

  Returns:
    The images' dtype, [B, max(H, h), max(W, w), max(C, c)].

  Raises:
    ValueError: if there are not as many images in both.
  """
  if a.ndim != 4 or b.ndim != 4 or len(a) != len(b):
    raise ValueError(
      f"images must be [B, H, W, C], as many in both, not {a.shape} and"
      f" {b.shape}."
    )
  shape = [max(sides) for sides in zip(a.shape, b.shape, strict=True)]

  def grown(images: jax.Array) -> jax.Array:
    missing = [
      (0, wide - side) for wide, side in zip(shape, images.shape, strict=True)
    ]
    return jnp.pad(images, missing)

  return grown(a) + grown(b)


class Con(nn.Module):
  """dlib's convolution: a bias, and padding only where it moves by one pixel.

  Parameters: "kernel" [size, size, C, features], "bias" [features].

  Attributes:
    features: channels of the result.
    size: height and width of the window, odd.
    stride: step of the window in pixels.
  """

  features: int
  size: int = 3
  stride: int = 1

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns [B, h, w, features] of images [B, H, W, C], in their dtype."""
    shape = (self.size, self.size, images.shape[-1], self.features)
    kernel = layers.parameter(self, "kernel", he_normal, shape)
    zeros = nn.initializers.zeros
    bias = layers.parameter(self, "bias", zeros, (self.features,))
    kernel, bias = kernel.astype(images.dtype), bias.astype(images.dtype)
    margin = self.size // 2 if self.stride == 1 else 0
    sides = (margin, margin)
    x = layers.conv(images, kernel, strides=self.stride, padding=(sides, sides))
    return x + channels.spread(bias, x.shape)


class Block(nn.Module):
  """Two 3x3 convolutions and the block's own input, added.

  Attributes:
    features: channels of the result.
    down: whether the first convolution moves by two pixels and the shortcut is
      averaged 2x2.
  """

  features: int
  down: bool = False

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """Returns [B, h, w, features] of images [B, H, W, C], in their dtype."""
    stride = 2 if self.down else 1
    x = Con(self.features, stride=stride, name="con1")(images)
    x = nn.relu(blocks.Affine(name="affine1")(x))
    x = Con(self.features, name="con2")(x)
    x = blocks.Affine(name="affine2")(x)
    shortcut = blocks.avg_pool(images, 2, 2) if self.down else images
    return nn.relu(add_padded(x, shortcut))


class DlibResNet(nn.Module):
  """dlib's ResNet-29 for faces (29 convolutions; 5,614,592 parameters).

  A 7x7 convolution that moves by two, 3x3 maximum pooling, stages of blocks
  (all but the first begin by halving the image), the mean over all pixels and
  one matrix without a bias. Parameters are named after dlib's own parts: the
  stages count down, alevel4 to alevel0. The embedding is not normalised: the
  published network was trained so that two of one person lie less than 0.6
  apart. There is no batch normalisation left to train with, and nothing drops;
  the module is meant for weights that exist and for fine-tuning them.
  bfloat16 moves an embedding of the published weights by at most 1.2 % of its
  length (200 faces).

  Attributes:
    dim: size of the embedding.
    widths: channels of each stage.
    depths: blocks of each stage, as many as there are widths.
    dtype: what is computed in, a name or a dtype; parameters are float32.
    remat: whether blocks are computed again for the gradient, to save memory.
  """

  dim: int = 128
  widths: tuple[int, ...] = (32, 64, 128, 256, 256)
  depths: tuple[int, ...] = (3, 4, 3, 3, 1)
  dtype: Any = "float32"
  remat: bool = False

  @property
  def smallest(self) -> int:
    """The least height and width in pixels; 103 for the published stages."""
    # The last stage that halves needs a window of 3, and each before it twice
    # that; 3x3 pooling and the 7x7 convolution halve too.
    halvings = len(self.widths) - 1
    before = 3 * 2 ** (halvings - 1) if halvings else 1
    return 4 * before + 7

  def _check(self, images: jax.Array) -> None:
    if not self.widths or len(self.widths) != len(self.depths):
      raise ValueError(
        "widths and depths must be of one length, at least 1, not"
        f" {self.widths} and {self.depths}."
      )
    if min(*self.widths, *self.depths) < 1:
      raise ValueError(
        "widths and depths must be at least 1, not"
        f" {self.widths} and {self.depths}."
      )
    blocks.check_images(images, smallest=self.smallest)

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
      images: (pixel - (122.782, 117.001, 104.298)) / 256 of pixels in 0..255,
        float [B, H, W, 3], RGB; 150x150 for the published weights.
      train: has no effect, and neither has `rows`.
      rows: index of each row in the global batch, int32 [B].

    Returns:
      Embeddings, float32 [B, dim].

    Raises:
      ValueError: if the images are not float [B, H, W, C] or smaller than
        `smallest`, or the stages make no sense.

    References: King 2017, High quality face recognition with deep metric
      learning (blog.dlib.net), and dlib's example dnn_face_recognition_ex.cpp;
      He et al. 2016, Deep residual learning for image recognition.
    """
    del train, rows
    dtype = blocks.compute_dtype(self.dtype)
    self._check(images)
    block = nn.remat(Block) if self.remat else Block
    x = Con(self.widths[0], 7, 2, name="con")(images.astype(dtype))
    x = nn.relu(blocks.Affine(name="affine")(x))
    x = blocks.max_pool(x, 3, 2)
    for stage, (width, depth) in enumerate(
      zip(self.widths, self.depths, strict=True)
    ):
      level = len(self.widths) - 1 - stage
      for number in range(depth):
        down = stage > 0 and number == 0
        x = block(width, down, name=f"alevel{level}_{number}")(x)
    x = blocks.global_avg_pool(x)
    x = nn.Dense(self.dim, use_bias=False, dtype=dtype, name="fc")(x)
    return x.astype(jnp.float32)
