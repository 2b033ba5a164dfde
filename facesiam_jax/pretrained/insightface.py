"""IResNet and MobileFaceNet as insightface's arcface_torch saves them."""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from facesiam_jax.pretrained import state_dict
from facesiam_jax.pretrained.source import Source

_STAGES = {
  "iresnet18": (2, 2, 2, 2),
  "iresnet34": (3, 4, 6, 3),
  "iresnet50": (3, 4, 14, 3),
  "iresnet100": (3, 13, 30, 3),
}
ENCODERS = (*_STAGES, "mobilefacenet")

# Four stages halve the face.
_SHRINK = 16

SOURCE = Source(
  encoder="iresnet50",
  args={},
  size=112,
  channels=3,
  standardize={"kind": "fixed", "mean": 0.5, "std": 0.5},
  alignment="arcface_112",
  metric="cosine",
  # |x - y|^2 = 2 (1 - cosine) on unit vectors; the published one is 1.24.
  threshold=0.62,
  reference=(
    "Deng et al. 2019, ArcFace; Chen et al. 2018, MobileFaceNets;"
    " github.com/deepinsight/insightface, arcface_torch; threshold 1.24 on the"
    " squared distance, the default of its deploy/test.py"
  ),
  licence="non-commercial research only",
)


def _iresnet(
  state: Mapping[str, np.ndarray], encoder: str | None
) -> tuple[str, dict[str, Any], int]:
  """Returns name, arguments and size of the face of an IResNet."""
  stages = tuple(state_dict.places(state, f"layer{n}.") for n in (1, 2, 3, 4))
  names = [name for name, known in _STAGES.items() if known == stages]
  features = state_dict.size_of(state, "bn2.weight", 0, 512)
  inputs = state_dict.size_of(state, "fc.weight", 1, features * 49)
  size = _SHRINK * math.isqrt(max(1, inputs // features))
  dim = state_dict.size_of(state, "fc.weight", 0, 512)
  args: dict[str, Any] = {"dim": dim, "size": size}
  if encoder is None:
    args["width"] = state_dict.size_of(state, "conv1.weight", 0, 64)
    if not names and all(stages):
      return SOURCE.encoder, {**args, "stage_sizes": list(stages)}, size
  return encoder or (names or [SOURCE.encoder])[0], args, size


def _mobilefacenet(
  state: Mapping[str, np.ndarray], encoder: str | None
) -> tuple[str, dict[str, Any], int]:
  """Returns name, arguments and size of the face of a MobileFaceNet."""
  size_of = lambda name, axis, default: state_dict.size_of(
    state, name, axis, default
  )
  size = _SHRINK * size_of("features.layers.0.layers.0.weight", 2, 7)
  dim = size_of("features.layers.2.weight", 0, 512)
  args: dict[str, Any] = {"dim": dim, "size": size}
  if encoder is None:
    width = size_of("conv_sep.layers.0.weight", 0, 512) // 8
    first = 1
    if "layers.1.layers.0.weight" not in state:
      first = state_dict.places(state, "layers.1.layers.")
    later = [state_dict.places(state, f"layers.{n}.layers.") for n in (3, 5, 7)]
    wide = size_of("layers.0.layers.0.weight", 0, 2 * width)
    args |= {
      "stage_sizes": [first, *later],
      "width": width,
      "scale": wide // max(1, width),
    }
  return "mobilefacenet", args, size


def source_of(
  state: Mapping[str, np.ndarray], encoder: str | None = None
) -> Source:
  """Finds out which network of insightface a state dict is of.

  Args:
    state: arrays by name.
    encoder: its name; None guesses it from the state dict.

  Returns:
    SOURCE with that encoder, its arguments and the size of its faces.

  Raises:
    UserError: if the encoder is none of insightface's.
  """
  if encoder is not None:
    state_dict.check_encoder("insightface", encoder, ENCODERS)
  mobile = "conv_sep.layers.0.weight" in state
  if encoder is not None:
    mobile = encoder == "mobilefacenet"
  guess = _mobilefacenet if mobile else _iresnet
  name, args, size = guess(state, encoder)
  return dataclasses.replace(SOURCE, encoder=name, args=args, size=size)


def _without_last_scale(
  state: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Moves the last normalisation's scale, which ours lacks, into `fc`.

  insightface fixes it at 1; where it is not, with s for the scale,
  s (x - m) / sd = (s x - s m) / sd.
  """
  state = dict(state)
  scale = state.pop("features.weight", None)
  names = ("fc.weight", "fc.bias", "features.running_mean")
  if scale is None or not all(name in state for name in names):
    return state
  for name in names:
    array = state[name]
    if len(array) == len(scale):
      state[name] = array * scale.reshape(-1, *[1] * (array.ndim - 1))
  return state


def read(
  path: str | os.PathLike[str], *, encoder: str | None = None
) -> tuple[Source, dict[str, Any]]:
  """Reads the weights of an IResNet or a MobileFaceNet of insightface.

  Args:
    path: as `state_dict.read` takes it.
    encoder: its name; None guesses it.

  Returns:
    What they are, and the Flax variables.

  Raises:
    UserError: if the file cannot be read or does not fit.
  """
  state = state_dict.read(path)
  source = source_of(state, encoder)
  flattened = {}
  if source.encoder != "mobilefacenet":
    state = _without_last_scale(state)
    flattened["fc"] = (source.size // _SHRINK,) * 2
  variables = state_dict.convert(state, source, file=path, flattened=flattened)
  return source, variables
