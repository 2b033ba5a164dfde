"""Plain convolutional encoders for small grey faces.

`ArticleCNN` is the network of the article that this library reproduces;
`SmallCNN` is cheaper and, with a contrastive loss, much better.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from facesiam_jax.encoders import layers


def _check(images: jax.Array, widths: tuple[int, ...], shrink: int) -> None:
  if images.ndim != 4:
    raise ValueError(f"images must be [B, H, W, C], not {images.shape}.")
  if not widths:
    raise ValueError("widths must name at least one stage.")
  smallest = shrink * 2 ** len(widths)
  if min(images.shape[1:3]) < smallest:
    raise ValueError(
      f"{len(widths)} stages need images of {smallest} pixels or more, not"
      f" {images.shape}."
    )


def local_contrast(
  images: jax.Array, sigma: float, floor: float = 0.02
) -> jax.Array:
  """Normalises each pixel by the mean and spread of its neighbourhood.

  With G a Gaussian blur whose weights are renormalised at the border:
    d = x - G(x),  result = d / sqrt(G(d^2) + floor)
  What varies slowly, such as the fall of light, disappears. The blur is two
  matrix products, which is much faster on CPU than convolving one channel.
  Batch meaning: rows are independent.

  Args:
    images: standardised to about unit variance, float [B, H, W, C].
    sigma: of the Gaussian, in pixels, > 0.
    floor: variance below which contrast is not amplified fully, > 0.

  Returns:
    float [B, H, W, C].

  Raises:
    ValueError: if sigma or floor is not positive.

  Degenerate input: a flat image gives zeros.
  References: Jarrett et al. 2009, What is the best multi-stage architecture
    for object recognition? (local contrast normalisation).
  """
  if min(sigma, floor) <= 0:
    raise ValueError(
      f"sigma and floor must be positive, not {sigma} and {floor}."
    )

  def weights(size: int) -> jax.Array:
    place = jnp.arange(size, dtype=jnp.float32)
    apart = place.reshape(-1, 1) - place.reshape(1, -1)
    unscaled = jnp.exp(-jnp.square(apart / sigma) / 2)
    return unscaled / unscaled.sum(axis=1, keepdims=True)

  rows, columns = weights(images.shape[1]), weights(images.shape[2])

  def blur(values: jax.Array) -> jax.Array:
    return jnp.einsum(
      "yi,bijc,xj->byxc",
      rows,
      values,
      columns,
      precision=jax.lax.Precision.HIGHEST,
    )

  centred = images - blur(images)
  return centred / jnp.sqrt(blur(jnp.square(centred)) + floor)


class ArticleCNN(nn.Module):
  """Three stages of convolution, pooling and dropout, then one dense layer.

  The article's encoder for 64x64 grey faces: each stage is a 3x3 convolution
  with ReLU, 2x2 maximum pooling and dropout. Pooling comes before bias and
  ReLU here, which gives the same values for less work. The embedding is not
  normalised.

  Attributes:
    widths: channels of each stage; as many stages as there are numbers.
    dim: size of the embedding.
    dropout: probability of a zero after each stage, in [0, 1).
  """

  widths: tuple[int, ...] = (32, 64, 128)
  dim: int = 128
  dropout: float = 0.3

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
      train: whether to drop; needs `rows` and the "dropout" stream.
      rows: index of each row in the global batch, int32 [B].

    Returns:
      Embeddings, float32 [B, dim].

    Raises:
      ValueError: if the images are too small for the stages, or training
        without `rows`.
    """
    _check(images, self.widths, 1)
    x = images
    for width in self.widths:
      x = nn.relu(layers.Conv(width, pool=True)(x))
      x = layers.RowDropout(self.dropout)(x, train=train, rows=rows)
    return nn.Dense(self.dim)(x.reshape(len(x), -1))


class SmallCNN(nn.Module):
  """A cheap encoder: shrinks the face first, then convolves.

  The face is first reduced by averaging blocks of pixels, which costs little
  accuracy and saves three quarters of the arithmetic for a block of 2x2; then
  `local_contrast`, where asked for. It helps where the light differs from
  picture to picture (photos of celebrities) and harms where it does not
  (Olivetti), since it takes away the tones of the face too. Stages as in
  `ArticleCNN` follow, each with a dropout of its own, then dropout and the
  dense layer. The embedding is not normalised.

  Attributes:
    widths: channels of each stage; as many stages as there are numbers.
    dim: size of the embedding.
    shrink: side of the blocks averaged at the input, in pixels; 1 = none.
    contrast_sigma: of `local_contrast`, in pixels of the shrunk face; 0 = none.
    stage_dropout: probability of a zero after each stage, in [0, 1).
    dropout: probability of a zero before the dense layer, in [0, 1).
  """

  widths: tuple[int, ...] = (16, 48, 96)
  dim: int = 128
  shrink: int = 2
  contrast_sigma: float = 0.0
  stage_dropout: float = 0.0
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    rows: jax.Array | None = None,
  ) -> jax.Array:
    """Embeds faces; see `ArticleCNN.__call__`."""
    _check(images, self.widths, self.shrink)
    x = images
    if self.shrink > 1:
      block = (self.shrink, self.shrink)
      x = nn.avg_pool(x, block, block)
    if self.contrast_sigma:
      x = local_contrast(x, self.contrast_sigma)
    for width in self.widths:
      x = nn.relu(layers.Conv(width, pool=True)(x))
      x = layers.RowDropout(self.stage_dropout)(x, train=train, rows=rows)
    x = x.reshape(len(x), -1)
    x = layers.RowDropout(self.dropout)(x, train=train, rows=rows)
    return nn.Dense(self.dim)(x)
