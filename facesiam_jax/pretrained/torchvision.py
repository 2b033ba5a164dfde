"""ResNets of torchvision's layout, for ImageNet or fine-tuned on faces."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from facesiam_jax.pretrained import state_dict
from facesiam_jax.pretrained.source import Source

ENCODERS = {
  "resnet18": (False, (2, 2, 2, 2)),
  "resnet34": (False, (3, 4, 6, 3)),
  "resnet50": (True, (3, 4, 6, 3)),
  "resnet101": (True, (3, 4, 23, 3)),
}

SOURCE = Source(
  encoder="resnet50",
  args={"dim": 1000},
  size=224,
  channels=3,
  standardize={
    "kind": "fixed",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
  },
  alignment="unaligned",
  metric="cosine",
  threshold=None,
  reference=(
    "He et al. 2016, Deep residual learning for image recognition;"
    " torchvision.models.resnet. Weights for ImageNet tell classes of things,"
    " not people: fine-tune them first"
  ),
  licence="BSD-3-Clause; ImageNet's pictures are for research",
)


def source_of(
  state: Mapping[str, np.ndarray], encoder: str | None = None
) -> Source:
  """Finds out which ResNet a state dict is of.

  The last layer, `fc`, is taken for the embedding, whatever its size.

  Args:
    state: arrays by name.
    encoder: its name; None guesses it from the state dict.

  Returns:
    SOURCE with that encoder and its arguments.

  Raises:
    UserError: if the encoder is no ResNet.
  """
  args: dict[str, Any] = {
    "dim": state_dict.size_of(state, "fc.weight", 0, 1000)
  }
  if encoder is not None:
    state_dict.check_encoder("torchvision", encoder, ENCODERS)
    return dataclasses.replace(SOURCE, encoder=encoder, args=args)
  stages = tuple(state_dict.places(state, f"layer{n}.") for n in (1, 2, 3, 4))
  kind = ("layer1.0.conv3.weight" in state, stages)
  names = [name for name, known in ENCODERS.items() if known == kind]
  args["width"] = state_dict.size_of(state, "conv1.weight", 0, 64)
  if not names and all(stages):
    args |= {"bottleneck": kind[0], "stage_sizes": list(stages)}
  return dataclasses.replace(
    SOURCE, encoder=(names or [SOURCE.encoder])[0], args=args
  )


def read(
  path: str | os.PathLike[str], *, encoder: str | None = None
) -> tuple[Source, dict[str, Any]]:
  """Reads the weights of a ResNet of torchvision's layout.

  Args:
    path: as `state_dict.read` takes it.
    encoder: name of the ResNet; None guesses it.

  Returns:
    What they are, and the Flax variables.

  Raises:
    UserError: if the file cannot be read or does not fit.
  """
  state = state_dict.read(path)
  source = source_of(state, encoder)
  return source, state_dict.convert(state, source, file=path)
