"""Weights of others, as a complete bundle that says what is not known."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from facesiam_jax import bundle, encoders, errors
from facesiam_jax.pretrained import (
  dlib_resnet,
  facenet_pytorch,
  insightface,
  state_dict,
  torchvision,
)
from facesiam_jax.pretrained.source import Source

_Weights = tuple[Source, dict[str, Any]]


def _read_dlib(
  path: str | os.PathLike[str] | None, *, encoder: str | None
) -> _Weights:
  source = dlib_resnet.SOURCE
  if encoder is not None:
    state_dict.check_encoder("dlib", encoder, [source.encoder])
  return source, dlib_resnet.read(dlib_resnet.find() if path is None else path)


_READERS: dict[str, Callable[..., _Weights]] = {
  "dlib": _read_dlib,
  "facenet_pytorch": facenet_pytorch.read,
  "insightface": insightface.read,
  "torchvision": torchvision.read,
}


def read(
  kind: str,
  path: str | os.PathLike[str] | None = None,
  *,
  encoder: str | None = None,
) -> _Weights:
  """Reads foreign weights.

  Args:
    kind: "dlib", "facenet_pytorch", "insightface" or "torchvision".
    path: the file; None, for "dlib" alone, means the one that the package
      face_recognition_models carries.
    encoder: name of the network; None guesses it from the file.

  Returns:
    What they are, and the encoder's Flax variables.

  Raises:
    UserError: for an unknown kind or encoder, or a file that is missing,
      damaged or of another network.
  """
  if kind not in _READERS:
    raise errors.UserError(
      f"--from={kind} is not known; choose from {', '.join(_READERS)}."
    )
  if path is None and kind != "dlib":
    raise errors.UserError(
      f"--from={kind} needs --weights=FILE: there are none to be found."
    )
  return _READERS[kind](path, encoder=encoder)


def write(
  folder: str | os.PathLike[str], source: Source, variables: dict[str, Any]
) -> bundle.Bundle:
  """Writes foreign weights as a bundle, whole or not at all.

  Args:
    folder: to make, or to replace the bundle of.
    source: of the weights.
    variables: Flax variables of its encoder.

  Returns:
    The bundle.

  Raises:
    OSError: if it cannot be written; a bundle that was there then stays.
    ValueError: if the variables do not fit the encoder.
  """
  return bundle.save(folder, *contents(source, variables))


def _head(source: Source) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns the entry and the variables of a head for a published threshold.

  Its logit is the threshold less the distance, so 0 at the threshold and of no
  meaning as a probability: that needs a calibration.
  """
  threshold = source.threshold or 0.0
  if source.metric == "euclidean":
    name, params = "euclidean_logistic", {"weight": -1.0, "bias": threshold}
  else:
    name, params = "cosine_logistic", {"scale": 1.0, "bias": threshold - 1.0}
  entry = {"name": name, "args": {"monotone": False}}
  return entry, {"params": {k: np.float32(v) for k, v in params.items()}}


def _thresholds(source: Source) -> dict[str, Any]:
  if source.threshold is None:
    return {"thresholds": {}, "default_threshold": None}
  published = {
    "logit": 0.0,
    "distance": source.threshold,
    "target": None,
    "fmr": None,
    "fnmr": None,
    "interval": None,
    "interval_reason": "published, not measured",
  }
  return {
    "thresholds": {"published": published},
    "default_threshold": "published",
  }


def contents(
  source: Source, variables: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Returns what `bundle.save` writes for foreign weights.

  Args:
    source: of the weights.
    variables: Flax variables of its encoder.

  Returns:
    The spec, marked as not calibrated, and {"encoder": ..., "head": ...}.

  Raises:
    ValueError: if the encoder is unknown or the variables do not fit it.
  """
  encoder = encoders.create(source.encoder, **source.args)
  side = source.size
  image = jax.ShapeDtypeStruct((1, side, side, source.channels), np.float32)
  embedding = jax.eval_shape(
    lambda v, x: encoder.apply(v, x, train=False), variables, image
  )
  head, head_variables = _head(source)
  spec = {
    "encoder": {"name": source.encoder, "args": source.args},
    "head": head,
    "metric": source.metric,
    "input": {"size": side, "channels": source.channels},
    "standardize": source.standardize,
    "views": {"mirror": False, "shift": 0.0, "scale": 0.0},
    "alignment": source.alignment,
    "calibrated": False,
    "dim": embedding.shape[1],
    **_thresholds(source),
    "calibration": {},
    "source": {"reference": source.reference, "licence": source.licence},
    "config": {},
  }
  return spec, {"encoder": variables, "head": head_variables}
