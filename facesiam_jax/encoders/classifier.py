"""The baseline of Siamese networks: the same backbone, a class a person."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from facesiam_jax.encoders import catalogue


class Classifier(nn.Module):
  """An encoder with a classification layer over identities on top.

  What a recogniser of faces is measured against: trained by
  `losses.softmax_cross_entropy`, it names the people it was trained on and no
  other. Its parameters are
  "backbone", those of the encoder alone, and "classes".

  Attributes:
    backbone: name of the encoder, or its import path.
    num_classes: number of people.
    arguments: the encoder's attributes.
    axis_name: mesh axis over which batch statistics are averaged; only for
      encoders that have any.

  References: Magnuson et al., Siamese Neural Networks for Facial Recognition,
    section 5 (ResNet-50 with logits over the people of CelebA).
  """

  backbone: str
  num_classes: int
  arguments: Mapping[str, Any] | None = None
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool = False,
    rows: jax.Array | None = None,
  ) -> jax.Array:
    """Classifies faces.

    Args:
      images: preprocessed faces, float32 [B, H, W, C].
      train: passed on to the encoder.
      rows: index of each row in the global batch, int32 [B].

    Returns:
      Logits of the people, float32 [B, num_classes].

    Raises:
      ValueError: if there is no such encoder or it does not take the images.
    """
    encoder = catalogue.create(self.backbone, **(self.arguments or {}))
    if self.axis_name and hasattr(encoder, "axis_name"):
      encoder = encoder.clone(axis_name=self.axis_name)
    embeddings = encoder.copy(name="backbone")(images, train=train, rows=rows)
    return nn.Dense(self.num_classes, name="classes")(embeddings)
