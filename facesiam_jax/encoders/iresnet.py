"""IResNet, the residual network of face recognition, in insightface's layout.

Against ResNet: a 3x3 stem that keeps the resolution, blocks normalised before
they convolve, PReLU, and a dense layer on all pixels in place of their mean.
Names of parameters are insightface's, a number joined to the name before it:
layer1.0.prelu.weight is layer1_0/prelu/slope. Its `fc` reads the pixels as
[C, H, W] flattened, ours as [H, W, C].
"""

from typing import Any

import jax
from flax import linen as nn

from facesiam_jax.encoders import blocks, layers

_SAME3 = ((1, 1), (1, 1))


class _Block(nn.Module):
  """Normalise, 3x3, normalise, PReLU, 3x3 with the stride, normalise; add."""

  features: int
  stride: int
  axis_name: str | None
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = lambda values, name: blocks.BatchNorm(
      axis_name=self.axis_name, dtype=self.dtype, name=name
    )(values, train=train)
    conv = lambda stride, name: layers.Conv(
      self.features, (3, 3), stride, _SAME3, use_bias=False, name=name
    )
    branch = conv(1, "conv1")(norm(x, "bn1"))
    branch = blocks.PReLU(name="prelu")(norm(branch, "bn2"))
    branch = norm(conv(self.stride, "conv2")(branch), "bn3")
    if self.stride > 1:
      x = layers.Conv(
        self.features,
        (1, 1),
        self.stride,
        "VALID",
        use_bias=False,
        name="downsample_0",
      )(x)
      x = norm(x, "downsample_1")
    return x + branch


class IResNet(nn.Module):
  """Stem, four stages that halve the face, dense embedding.

  The embedding is not of unit length; its last step is a batch normalisation
  without a scale (insightface keeps one and fixes it at 1).

  Attributes:
    stage_sizes: blocks of each stage; all halve the image.
    width: channels of the stem and the first stage; doubled at each stage.
    size: height and width of the faces, pixels, a multiple of 16 for four
      stages.
    dim: size of the embedding.
    dropout: probability of a zero before the dense layer, in [0, 1).
    dtype: compute dtype; in bfloat16 the embedding of random weights is within
      3 % (IResNet-50) of float32's, as a vector.
    remat: whether the backward pass computes the blocks' insides again.
    axis_name: mesh axis over which batch statistics are averaged.

  References: Deng et al. 2019, ArcFace (the network of its table 1); Duta et
    al. 2020, Improved Residual Networks; insightface, arcface_torch.
  """

  stage_sizes: tuple[int, ...] = (3, 4, 14, 3)
  width: int = 64
  size: int = 112
  dim: int = 512
  dropout: float = 0.0
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
      train: whether to normalise by the batch's own statistics and to drop.
      rows: index of each row in the global batch, int32 [B]; needed when
        training with dropout.

    Returns:
      Embeddings, float32 [B, dim].

    Raises:
      ValueError: if the images are of another size, the dtype is none to
        compute in, or training with dropout without `rows`.
    """
    blocks.check_images(images, size=self.size)
    block = nn.remat(_Block, static_argnums=(2,)) if self.remat else _Block
    common = {"axis_name": self.axis_name, "dtype": self.dtype}
    x = images.astype(blocks.compute_dtype(self.dtype))
    x = layers.Conv(
      self.width, (3, 3), 1, _SAME3, use_bias=False, name="conv1"
    )(x)
    x = blocks.BatchNorm(**common, name="bn1")(x, train=train)
    x = blocks.PReLU(name="prelu")(x)
    for stage, count in enumerate(self.stage_sizes):
      for number in range(count):
        stride = 1 if number else 2
        name = f"layer{stage + 1}_{number}"
        make = block(self.width * 2**stage, stride, **common, name=name)
        x = make(x, train)
    x = blocks.BatchNorm(**common, name="bn2")(x, train=train)
    x = x.reshape(len(x), -1)
    x = layers.RowDropout(self.dropout)(x, train=train, rows=rows)
    x = nn.Dense(self.dim, dtype=x.dtype, name="fc")(x)
    return blocks.BatchNorm(
      use_scale=False, axis_name=self.axis_name, name="features"
    )(x, train=train)
