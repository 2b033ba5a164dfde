"""Encoders: networks from faces to embeddings, and the catalogue of them.

Every encoder is a Flax module called as
  module(images, *, train=False, rows=None) -> embeddings
with images float32 [B, H, W, C], embeddings float32 [B, D], and rows int32 [B],
the index of each row in the global batch, needed when training with dropout
(stream "dropout").
"""

from facesiam_jax.encoders.catalogue import create, names
from facesiam_jax.encoders.cnn import ArticleCNN, SmallCNN
from facesiam_jax.encoders.convolution import compiler_options
from facesiam_jax.encoders.gabor import Gabor

__all__ = [
  "ArticleCNN",
  "Gabor",
  "SmallCNN",
  "compiler_options",
  "create",
  "names",
]
