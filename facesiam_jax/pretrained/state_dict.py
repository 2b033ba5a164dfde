"""Weights of PyTorch networks: files to arrays, arrays to Flax variables.

A state dict is a flat table of names and arrays: "layer1.0.conv1.weight". Its
convolutions are [out, in, kh, kw] and its dense layers [out, in]; Flax's are
[kh, kw, in, out] and [in, out].
"""

import math
import os
import pathlib
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from facesiam_jax import encoders, errors
from facesiam_jax.pretrained.source import Source

SUFFIXES = (".safetensors", ".pt", ".pth", ".npz")

_NAMED = 5
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What PyTorch calls a Flax leaf.
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "slope": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
  """Reads a file of named arrays; never runs code that is in it.

  A state dict inside {"state_dict": ...}, "model_state_dict" or "model" is
  taken out, and "module." (of DataParallel) cut off.

  Args:
    path: .safetensors, .pt or .pth (needs torch), or .npz.

  Returns:
    Arrays by name, of any dtype and shape.

  Raises:
    UserError: if the file is missing, of another kind, damaged, holds no
      arrays or more than arrays, or a package to read it with is missing.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    problem = "is a folder" if path.is_dir() else "does not exist"
    raise errors.UserError(f"{path} {problem}; name a file of weights.")
  readers = dict.fromkeys((".pt", ".pth"), _read_torch)
  readers |= {".safetensors": _read_safetensors, ".npz": _read_npz}
  if path.suffix.lower() not in readers:
    raise errors.UserError(
      f"{path} has a name that ends in none of {', '.join(SUFFIXES)}; convert "
      "it to one of them."
    )
  arrays = readers[path.suffix.lower()](path)
  if not arrays:
    raise errors.UserError(
      f"{path} holds no arrays by name; save the network's state_dict() to it."
    )
  if all(name.startswith("module.") for name in arrays):
    arrays = {k.removeprefix("module."): v for k, v in arrays.items()}
  return arrays


def _damaged(path: pathlib.Path, what: str) -> errors.UserError:
  return errors.UserError(
    f"{path} is damaged, cut short or no {what} file; copy it again."
  )


def _missing_package(
  path: pathlib.Path, name: str, extra: str
) -> errors.UserError:
  return errors.UserError(
    f"{path} needs the package {name} to be read; install it with `pip install "
    f"'facesiam_jax[{extra}]'`."
  )


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import safetensors
    import safetensors.numpy
  except ImportError as error:
    raise _missing_package(path, "safetensors", "pretrained") from error
  try:
    return safetensors.numpy.load_file(path)
  except safetensors.SafetensorError as error:
    raise _damaged(path, ".safetensors") from error


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  # NumPy takes what is no zip for a pickle, and says so.
  if not zipfile.is_zipfile(path):
    raise _damaged(path, ".npz")
  try:
    # np.load leaves a damaged file that it opened itself open.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
  except (
    *(ValueError, EOFError, OSError, KeyError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
  ) as error:
    if "Object arrays" in str(error):
      raise _more_than_arrays(path) from error
    raise _damaged(path, ".npz") from error
  if not all(isinstance(array, np.ndarray) for array in arrays.values()):
    # A member that is no .npy file comes as bytes.
    raise _damaged(path, ".npz")
  return arrays


def _more_than_arrays(path: pathlib.Path) -> errors.UserError:
  return errors.UserError(
    f"{path} holds pickled objects besides arrays, which could run code when "
    "read, so it was not read; save the network's state_dict() alone."
  )


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ImportError as error:
    raise _missing_package(path, "torch", "torch") from error
  try:
    held = torch.load(path, map_location="cpu", weights_only=True)
  except pickle.UnpicklingError as error:
    if "weights_only" in str(error) or "Weights only" in str(error):
      raise _more_than_arrays(path) from error
    raise _damaged(path, "PyTorch") from error
  # What else a damaged file leads to is torch's own affair.
  except Exception as error:
    raise _damaged(path, "PyTorch") from error
  while isinstance(held, dict):
    inner = next((held[key] for key in _WRAPPERS if key in held), None)
    if not isinstance(inner, dict):
      break
    held = inner
  if not isinstance(held, dict):
    return {}
  return {
    str(name): value.detach().to(_numpy_dtype(torch, value)).numpy()
    for name, value in held.items()
    if isinstance(value, torch.Tensor)
  }


def _numpy_dtype(torch: Any, tensor: Any) -> Any:
  """The tensor's dtype; float32 for floats, some of which NumPy lacks."""
  return torch.float32 if tensor.is_floating_point() else tensor.dtype


def plain_name(module: tuple[str, ...]) -> str:
  """Names a Flax module as PyTorch does: ("layer1_0", "bn1") layer1.0.bn1.

  Args:
    module: names from the outermost in; a number after the last "_" of a name
      is a place in a list of modules.

  Returns:
    The name.
  """
  return ".".join(re.sub(r"_(\d+)$", r".\1", part) for part in module)


def places(state: Mapping[str, np.ndarray], prefix: str) -> int:
  """Counts the places of a list of modules that a state dict has.

  Args:
    state: arrays by name.
    prefix: what comes before the place, as "layer1.".

  Returns:
    How many different numbers follow the prefix.
  """
  found = (re.match(re.escape(prefix) + r"(\d+)\.", name) for name in state)
  return len({match.group(1) for match in found if match})


def size_of(
  state: Mapping[str, np.ndarray], name: str, axis: int, default: int
) -> int:
  """Returns the length of an axis of an array; the default if there is none."""
  if name not in state or state[name].ndim <= axis:
    return default
  return state[name].shape[axis]


def check_encoder(kind: str, encoder: str, known: Iterable[str]) -> None:
  """Raises UserError if an encoder is none that a source has weights of."""
  if encoder not in known:
    raise errors.UserError(
      f"--encoder={encoder} is not one that --from={kind} has weights of; "
      f"choose from {', '.join(known)}, or leave --encoder away."
    )


def shapes_of(source: Source) -> dict[str, Any]:
  """Returns the shapes of an encoder's variables, without making them.

  Args:
    source: names the encoder, its arguments and its faces.

  Returns:
    Variables with jax.ShapeDtypeStruct for leaves.

  Raises:
    UserError: if there is no such encoder, or it does not take its faces.
  """
  side, channels = source.size, source.channels
  image = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
  try:
    encoder = encoders.create(source.encoder, **source.args)
    return jax.eval_shape(encoder.init, jax.random.key(0), image)
  except ValueError as error:
    raise errors.UserError(str(error)) from error


def _torch_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  if leaf != "kernel":
    return shape
  return (*reversed(shape[-2:]), *shape[:-2])


def flax_layout(
  leaf: str, array: np.ndarray, map_size: tuple[int, int] | None
) -> np.ndarray:
  """Returns an array in Flax's order of axes.

  Args:
    leaf: its Flax name.
    array: as PyTorch has it.
    map_size: height and width of the feature map that was flattened before a
      dense layer; PyTorch flattens channels first, we last.
  """
  if leaf != "kernel":
    return array
  if array.ndim == 4:
    return array.transpose(2, 3, 1, 0)
  if map_size is not None:
    channels = array.shape[1] // math.prod(map_size)
    array = array.reshape(len(array), channels, *map_size)
    array = array.transpose(0, 2, 3, 1).reshape(len(array), -1)
  return array.T


def _is_float32(array: np.ndarray) -> bool:
  with np.errstate(over="ignore"):
    return bool(np.isfinite(array.astype(np.float32)).all())


def _problems(
  state: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]
) -> Iterator[str]:
  for name, array in state.items():
    if name in wanted and array.shape != wanted[name]:
      found, right = list(array.shape), list(wanted[name])
      yield f"{name} is {found} in the file and {right} in the encoder"
  for name in wanted:
    if name not in state:
      yield f"{name} is missing"
  for name in state:
    if name not in wanted:
      yield f"{name} is not in the encoder"
  for name, array in state.items():
    if name in wanted and not jnp.issubdtype(array.dtype, jnp.floating):
      yield f"{name} is {array.dtype}, no float"
    elif name in wanted and not _is_float32(array):
      yield f"{name} has numbers that are not finite"


def convert(
  state: Mapping[str, np.ndarray],
  source: Source,
  *,
  file: str | os.PathLike[str],
  name_of: Callable[[tuple[str, ...]], str] = plain_name,
  flattened: Mapping[str, tuple[int, int]] | None = None,
  ignored: tuple[str, ...] = (),
) -> dict[str, Any]:
  """Turns a state dict into the Flax variables of an encoder.

  Args:
    state: arrays by name.
    source: names the encoder, its arguments and its faces.
    file: where the arrays are from, for errors.
    name_of: from the path of a Flax module to PyTorch's name of it.
    flattened: by name of a dense layer: height and width of the feature map
      that is flattened before it.
    ignored: beginnings of names that the encoder has no use for. The counters
      "num_batches_tracked" are ignored always.

  Returns:
    {"params": ...} and, where there are any, {"batch_stats": ...}: NumPy
    float32 leaves.

  Raises:
    UserError: if names are missing, not known, of another shape or no finite
      floats; the first five are named.
  """
  leaves = flax.traverse_util.flatten_dict(shapes_of(source))
  names = {
    path: f"{name_of(path[1:-1])}.{_LEAVES[path[-1]]}" for path in leaves
  }
  state = {
    name: array
    for name, array in state.items()
    if not name.endswith("num_batches_tracked") and not name.startswith(ignored)
  }
  wanted = {
    names[path]: _torch_shape(path[-1], leaf.shape)
    for path, leaf in leaves.items()
  }
  problems = list(_problems(state, wanted))
  if problems:
    raise errors.UserError(_sentence(file, source.encoder, problems))
  map_sizes = flattened or {}
  done = {}
  for path, name in names.items():
    map_size = map_sizes.get(name_of(path[1:-1]))
    array = flax_layout(path[-1], state[name].astype(np.float32), map_size)
    done[path] = np.ascontiguousarray(array)
  return flax.traverse_util.unflatten_dict(done)


def _sentence(
  file: str | os.PathLike[str], encoder: str, problems: list[str]
) -> str:
  more = len(problems) - _NAMED
  named = "; ".join(problems[:_NAMED]) + (
    f"; and {more} more" if more > 0 else ""
  )
  return (
    f"{file} does not fit the encoder {encoder}: {named}. Name the encoder it "
    "was saved from with --encoder, or another file."
  )
