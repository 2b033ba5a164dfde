"""Inception-ResNet-v1 in facenet-pytorch's layout: 160x160 RGB to 512 numbers.

Names of parameters are the original's, a number joined to the name before it:
repeat_1.0.branch1.1.conv.weight is repeat_1_0/branch1_1/conv/kernel. Channels
are multiples of a width, which is 32 in the original.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.tree_util import Partial

from facesiam_jax import ops
from facesiam_jax.encoders import blocks, layers

_EPSILON = 1e-3
# One convolution: (channels in widths, (rows, columns) of the window, stride).
_Step = tuple[int, tuple[int, int], int]
_Plan = tuple[tuple[_Step, ...], ...]

_ONE, _THREE = (1, 1), (3, 3)
_BLOCK35: _Plan = (
  ((1, _ONE, 1),),
  ((1, _ONE, 1), (1, _THREE, 1)),
  ((1, _ONE, 1), (1, _THREE, 1), (1, _THREE, 1)),
)
_BLOCK17: _Plan = (
  ((4, _ONE, 1),),
  ((4, _ONE, 1), (4, (1, 7), 1), (4, (7, 1), 1)),
)
_BLOCK8: _Plan = (
  ((6, _ONE, 1),),
  ((6, _ONE, 1), (6, (1, 3), 1), (6, (3, 1), 1)),
)
_MIXED_6A: _Plan = (
  ((12, _THREE, 2),),
  ((6, _ONE, 1), (6, _THREE, 1), (8, _THREE, 2)),
)
_MIXED_7A: _Plan = (
  ((8, _ONE, 1), (12, _THREE, 2)),
  ((8, _ONE, 1), (8, _THREE, 2)),
  ((8, _ONE, 1), (8, _THREE, 1), (8, _THREE, 2)),
)


class _Unit(nn.Module):
  """Convolution without bias, batch normalisation, ReLU."""

  features: int
  window: tuple[int, int]
  stride: int
  padded: bool
  axis_name: str | None
  dtype: Any

  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Returns the result, [B, h, w, features]."""
    return self.later(x, train)()

  @nn.compact
  def later(self, x: jax.Array | Partial, train: bool) -> Partial:
    """Returns what makes the result, for the convolution that follows."""
    rows, columns = (side // 2 if self.padded else 0 for side in self.window)
    values = layers.Conv(
      self.features,
      self.window,
      self.stride,
      ((rows, rows), (columns, columns)),
      use_bias=False,
      name="conv",
    )(x)
    norm = blocks.BatchNorm(
      epsilon=_EPSILON, axis_name=self.axis_name, dtype=self.dtype, name="bn"
    )
    return blocks.relu_later(norm.later(values, train=train))


def _concatenated(*made: Partial) -> jax.Array:
  return jnp.concatenate([one() for one in made], axis=-1)


class _Branches(nn.Module):
  """Several chains of convolutions of one input, their results joined.

  Attributes:
    plan: the chains; a stride of 1 keeps the size, one of 2 does not pad.
    width: unit of the channels.
    common: axis_name and dtype.
  """

  plan: _Plan
  width: int
  common: Any

  def _joined(self, x: jax.Array, train: bool) -> Partial:
    """Returns what makes the joined results."""
    results = []
    for number, steps in enumerate(self.plan):
      branch: jax.Array | Partial = x
      for place, (features, window, stride) in enumerate(steps):
        # As in the original, a chain of one has no places.
        suffix = f"_{place}" if len(steps) > 1 else ""
        branch = _Unit(
          features * self.width,
          window,
          stride,
          padded=stride == 1,
          **self.common,
          name=f"branch{number}{suffix}",
        ).later(branch, train)
      results.append(branch)
    return Partial(_concatenated, *results)


class _Residual(_Branches):
  """x + scale * a 1x1 convolution of the joined branches, then ReLU."""

  scale: float = 1.0
  rectified: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    joined = self._joined(x, train)
    change = layers.Conv(x.shape[-1], _ONE, name="conv2d")(joined)
    x = x + self.scale * change
    return nn.relu(x) if self.rectified else x


class _Reduction(_Branches):
  """Branches and the 3x3 maximum, all halving the size, joined."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    pooled = blocks.max_pool(x, 3, 2)
    return jnp.concatenate([self._joined(x, train)(), pooled], axis=-1)


class InceptionResNetV1(nn.Module):
  """Stem, three runs of inception blocks with shortcuts, mean, dense embedding.

  The embedding is of unit length, as in the original; `normalize` = False
  leaves that out. In bfloat16 an entry of a unit embedding was at most 0.005
  off on a narrow network with random weights.

  Attributes:
    stage_sizes: blocks of each run.
    width: unit of all channels, even: 32 in the original.
    dim: size of the embedding.
    dropout: probability of a zero before the dense layer, in [0, 1).
    normalize: whether to divide the embedding by its length.
    dtype: compute dtype.
    remat: whether the backward pass computes the blocks' insides again.
    axis_name: mesh axis over which batch statistics are averaged.

  References: Szegedy et al. 2017, Inception-v4, Inception-ResNet and the
    impact of residual connections on learning; facenet-pytorch (which departs
    from the paper in the scales and in the last block, as FaceNet's
    TensorFlow code does).
  """

  stage_sizes: tuple[int, int, int] = (5, 10, 5)
  width: int = 32
  dim: int = 512
  dropout: float = 0.6
  normalize: bool = True
  dtype: Any = "float32"
  remat: bool = False
  axis_name: str | None = None

  def _stem(self, x: jax.Array, train: bool) -> jax.Array:
    common: dict[str, Any] = {"axis_name": self.axis_name, "dtype": self.dtype}
    half = self.width // 2
    for name, features, side, stride, padded in (
      ("1a", 2, 3, 2, False),
      ("2a", 2, 3, 1, False),
      ("2b", 4, 3, 1, True),
      ("3b", 5, 1, 1, False),
      ("4a", 12, 3, 1, False),
      ("4b", 16, 3, 2, False),
    ):
      unit = _Unit(
        features * half,
        (side, side),
        stride,
        padded,
        **common,
        name=f"conv2d_{name}",
      )
      x = unit(x, train)
      if name == "2b":
        x = blocks.max_pool(x, 3, 2)
    return x

  def _trunk(self, x: jax.Array, train: bool) -> jax.Array:
    block = (
      nn.remat(_Residual, static_argnums=(2,)) if self.remat else _Residual
    )
    common = {"axis_name": self.axis_name, "dtype": self.dtype}
    settings: dict[str, Any] = {"width": self.width, "common": common}
    runs = ((_BLOCK35, 0.17), (_BLOCK17, 0.10), (_BLOCK8, 0.20))
    reductions = (("mixed_6a", _MIXED_6A), ("mixed_7a", _MIXED_7A))
    for number, (plan, scale) in enumerate(runs):
      for place in range(self.stage_sizes[number]):
        name = f"repeat_{number + 1}_{place}"
        x = block(plan, **settings, scale=scale, name=name)(x, train)
      if number < len(reductions):
        name, plan = reductions[number]
        x = _Reduction(plan, **settings, name=name)(x, train)
    return block(_BLOCK8, **settings, rectified=False, name="block8")(x, train)

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
      train: whether to normalise by the batch's own statistics and to drop.
      rows: index of each row in the global batch, int32 [B]; needed when
        training with dropout.

    Returns:
      Embeddings, float32 [B, dim]; of unit length where `normalize`.

    Raises:
      ValueError: if the images are smaller than 75 x 75, the width is odd, the
        dtype is none to compute in, or training with dropout without `rows`.
    """
    blocks.check_images(images, smallest=75)
    if self.width < 2 or self.width % 2:
      raise ValueError(f"width must be even and positive, not {self.width}.")
    x = self._stem(images.astype(blocks.compute_dtype(self.dtype)), train)
    x = blocks.global_avg_pool(self._trunk(x, train))
    x = layers.RowDropout(self.dropout)(x, train=train, rows=rows)
    x = nn.Dense(self.dim, use_bias=False, name="last_linear")(x)
    norm = blocks.BatchNorm(
      epsilon=_EPSILON, axis_name=self.axis_name, name="last_bn"
    )
    x = norm(x, train=train)
    return ops.l2_normalize(x) if self.normalize else x
