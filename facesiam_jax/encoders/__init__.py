"""Encoders: networks from faces to embeddings, and the registry of their names.

Every encoder is a Flax module called as
  module(images, *, train=False, rows=None) -> embeddings
with images float32 [B, H, W, C], embeddings float32 [B, D], and rows int32 [B],
the index of each row in the global batch, needed when training with dropout
(stream "dropout").
"""

import importlib
from typing import Any

from flax import linen as nn

from facesiam_jax.encoders.cnn import ArticleCNN, SmallCNN
from facesiam_jax.encoders.gabor import Gabor

__all__ = [
  "ArticleCNN",
  "Gabor",
  "SmallCNN",
  "create",
  "names",
]

_ENCODERS: dict[str, type[nn.Module]] = {
  "article_cnn": ArticleCNN,
  "gabor": Gabor,
  "small_cnn": SmallCNN,
}


def names() -> tuple[str, ...]:
  """Returns the names that `create` knows, sorted."""
  return tuple(sorted(_ENCODERS))


def _import_encoder(path: str) -> Any:
  module_name, _, attribute = path.partition(":")
  try:
    return getattr(importlib.import_module(module_name), attribute)
  except (ImportError, AttributeError, ValueError) as error:
    raise ValueError(
      f"encoder {path!r} cannot be imported: {error}."
    ) from error


def create(name: str, **args: Any) -> nn.Module:
  """Makes the encoder of a name.

  Args:
    name: one of `names()`, or an import path "package.module:Class" of one's
      own encoder.
    **args: the encoder's attributes; lists become tuples, so that arguments
      read back from JSON work.

  Returns:
    The module, without parameters: call its `init`.

  Raises:
    ValueError: if the name is unknown, the path cannot be imported or is no
      Flax module, or an argument is not one of its attributes.
  """
  if ":" in name:
    encoder = _import_encoder(name)
  elif name in _ENCODERS:
    encoder = _ENCODERS[name]
  else:
    raise ValueError(
      f"unknown encoder {name!r}; known are {', '.join(names())}, or an import"
      " path package.module:Class."
    )
  if not (isinstance(encoder, type) and issubclass(encoder, nn.Module)):
    raise ValueError(f"encoder {name!r} is not a flax.linen.Module class.")
  frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in args.items()}
  try:
    return encoder(**frozen)
  except TypeError as error:
    raise ValueError(f"encoder {name!r}: {error}.") from error
