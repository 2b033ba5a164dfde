"""The convolutional Siamese network for one-shot recognition of Koch et al."""

from typing import Any

import jax
from flax import linen as nn

from facesiam_jax.encoders import blocks, layers


class Koch(nn.Module):
  """Four unpadded convolutions, pooled in between, and a sigmoid layer.

  Each stage is a convolution and ReLU; 2x2 maximum pooling follows all but the
  last. The embedding is the sigmoid of a dense layer, in 0..1, not of unit
  length; the paper compares two by a weighted L1 distance. Weights start as
  elsewhere in this library (He; LeCun for the dense layer), not from the
  paper's fixed deviations 0.01 and 0.2, at which the sigmoids saturate without
  its schedule.

  Attributes:
    widths: channels of each stage.
    windows: side of each stage's window, pixels.
    size: height and width of the faces, pixels.
    dim: size of the embedding.
    dtype: compute dtype; in bfloat16 the embedding of random weights is within
      0.2 % of float32's, as a vector.
    remat: whether the backward pass computes the convolutions again.

  References: Koch et al. 2015, Siamese Neural Networks for One-shot Image
    Recognition, figure 4.
  """

  widths: tuple[int, ...] = (64, 128, 128, 256)
  windows: tuple[int, ...] = (10, 7, 4, 4)
  size: int = 105
  dim: int = 4096
  dtype: Any = "float32"
  remat: bool = False

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
      images: preprocessed faces, float32 [B, size, size, C]; grey in the paper.
      train: not used: nothing differs in training.
      rows: not used: there is no dropout.

    Returns:
      Embeddings, float32 [B, dim], in 0..1.

    Raises:
      ValueError: if the images are of another size, widths and windows differ
        in number, a window exceeds what is left of the image, or the dtype is
        none to compute in.
    """
    del train, rows
    blocks.check_images(images, size=self.size)
    if len(self.widths) != len(self.windows):
      raise ValueError(
        f"widths {self.widths} and windows {self.windows} differ in number."
      )
    conv = nn.remat(layers.Conv) if self.remat else layers.Conv
    x = images.astype(blocks.compute_dtype(self.dtype))
    last = len(self.widths)
    for number, (width, window) in enumerate(
      zip(self.widths, self.windows, strict=True), start=1
    ):
      # Pooled before bias and ReLU: the same values for less work.
      stage = conv(
        width,
        (window, window),
        padding="VALID",
        pool=number < last,
        name=f"conv{number}",
      )
      x = nn.relu(stage(x))
    x = nn.Dense(self.dim, dtype=x.dtype, name="fc")(x.reshape(len(x), -1))
    return nn.sigmoid(x.astype("float32"))
