"""Inception-ResNet-v1 as facenet-pytorch publishes it."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from facesiam_jax.encoders.inception_resnet import InceptionResNetV1
from facesiam_jax.pretrained import state_dict
from facesiam_jax.pretrained.source import Source

SOURCE = Source(
  encoder="inception_resnet_v1",
  args={},
  size=160,
  channels=3,
  # (pixel - 127.5) / 128
  standardize={"kind": "fixed", "mean": 0.5, "std": 128 / 255},
  alignment="mtcnn160",
  metric="cosine",
  # The 1.242 of the FaceNet paper (squared, on LFW) is another network's.
  threshold=None,
  reference=(
    "github.com/timesler/facenet-pytorch (20180402-114759-vggface2.pt,"
    " 20180408-102900-casia-webface.pt); Schroff et al. 2015, FaceNet"
  ),
  licence="MIT code; VGGFace2 and CASIA-WebFace are for research",
)


def source_of(state: Mapping[str, np.ndarray]) -> Source:
  """Returns SOURCE with the sizes of a state dict, where not the original's."""
  default = InceptionResNetV1()
  found: dict[str, Any] = {
    "width": state_dict.size_of(state, "conv2d_1a.conv.weight", 0, 32),
    "dim": state_dict.size_of(state, "last_linear.weight", 0, 512),
    "stage_sizes": tuple(
      state_dict.places(state, f"repeat_{n}.") for n in (1, 2, 3)
    ),
  }
  if not all(found["stage_sizes"]):
    return SOURCE
  args = {k: v for k, v in found.items() if v != getattr(default, k)}
  return dataclasses.replace(SOURCE, args=args)


def read(
  path: str | os.PathLike[str], *, encoder: str | None = None
) -> tuple[Source, dict[str, Any]]:
  """Reads the weights of facenet-pytorch's InceptionResnetV1.

  The classifier of its training people, `logits`, is left out.

  Args:
    path: as `state_dict.read` takes it.
    encoder: "inception_resnet_v1" or None.

  Returns:
    SOURCE, with the file's sizes where they are others, and the Flax variables.

  Raises:
    UserError: if the file cannot be read or does not fit.
  """
  if encoder is not None:
    state_dict.check_encoder("facenet_pytorch", encoder, [SOURCE.encoder])
  state = state_dict.read(path)
  source = source_of(state)
  return source, state_dict.convert(
    state, source, file=path, ignored=("logits.",)
  )
