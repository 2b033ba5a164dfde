"""Embeddings that are computed once: on all devices, and kept on the disk.

A cached file is named after what decides its content (bundle, images, options)
and carries a digest of what it holds: one that is damaged is computed anew.
"""

import hashlib
import json
import os
import pathlib
import sys
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from jax.sharding import PartitionSpec as P

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import encoders, errors, files, parallel
from facesiam_jax.encoders import inference
from facesiam_jax.evaluation import templates


class Embedded(NamedTuple):
  """Embeddings of images of which some may show no usable face.

  Attributes:
    embeddings: float32 [M, D].
    rows: which of the N images each is of, int32 [M].
    reasons: why an image has none, "" where it has one, string [N].
  """

  embeddings: np.ndarray
  rows: np.ndarray
  reasons: np.ndarray


def default_folder() -> pathlib.Path:
  """Returns facesiam_jax/embeddings of the user's cache folder."""
  return files.user_cache() / "embeddings"


def embed(
  bundle: bundle_lib.Bundle,
  images: Any,
  *,
  mirror: bool = False,
  mesh: jax.sharding.Mesh | None = None,
) -> np.ndarray:
  """Embeds faces, each device some of them, with a progress bar.

  Args:
    bundle: the recogniser.
    images: uint8 [N, H, W, C] of its input size; those on the disk are read a
      block at a time.
    mirror: average each embedding with that of the mirrored face; unit rows
      again where the bundle's metric is "cosine".
    mesh: from `parallel.make_mesh`; None takes all devices.

  Returns:
    float32 [N, D], the same bits as `bundle.embed` gives without `mirror`.
  """
  mesh = parallel.make_mesh() if mesh is None else mesh
  platform = parallel.platform(mesh)
  mapped = parallel.pmap(
    bundle.embedder,
    mesh,
    in_specs=(P(), P(parallel.AXIS)),
    compiler_options=encoders.compiler_options(platform),
  )
  variables = parallel.replicate(bundle.variables["encoder"], mesh)
  # As many rows a device as `Bundle.embed` takes: the same bits.
  size = inference.block_size(platform) * mesh.size
  parts = [np.zeros((0, bundle.dim), np.float32)]
  with tqdm.tqdm(
    total=len(images), desc="embedding", unit="face", leave=False, disable=None
  ) as bar:
    for first in range(0, len(images), size):
      block = np.asarray(images[first : first + size])
      padding = ((0, size - len(block)), (0, 0), (0, 0), (0, 0))
      views = [block, block[:, :, ::-1]] if mirror else [block]
      found = [np.asarray(mapped(variables, np.pad(v, padding))) for v in views]
      parts.append(_mean(found, bundle.metric)[: len(block)])
      bar.update(len(block))
  return np.concatenate(parts)


def _mean(views: list[np.ndarray], metric: str) -> np.ndarray:
  if len(views) == 1:
    return views[0]
  mean = np.stack(views).astype(np.float64).mean(axis=0)
  if metric == "cosine":
    mean = templates.unit_rows(mean)
  return np.asarray(mean, np.float32)


def cached(
  folder: str | os.PathLike[str] | None,
  what: Mapping[str, Any],
  compute: Callable[[], Embedded],
) -> Embedded:
  """Returns embeddings from the cache, or computes them and keeps them.

  Args:
    folder: of the cache, made where it is missing; None keeps nothing.
    what: all that decides the embeddings, values that JSON can hold.
    compute: makes them.

  Returns:
    The embeddings.

  Raises:
    UserError: if the folder cannot be written to.
  """
  if folder is None:
    return compute()
  text = json.dumps(dict(what), sort_keys=True)
  name = hashlib.sha256(text.encode()).hexdigest()
  path = pathlib.Path(folder) / f"{name}.npz"
  if path.exists():
    found = _read(path)
    if found is not None:
      print(f"embeddings of {path} are used again", file=sys.stderr)
      return found
    print(f"{path} is damaged: its embeddings are made anew", file=sys.stderr)
  found = compute()
  arrays = found._asdict()
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as file:
      digest = files.sha256_of_arrays(arrays)
      np.savez(file, **arrays, sha256=np.array(digest))
  except OSError as error:
    raise errors.UserError(
      f"--cache={folder} cannot be written ({error.strerror}): name another "
      "folder, or keep none with --cache=none."
    ) from error
  return found


def _read(path: pathlib.Path) -> Embedded | None:
  """Returns what a file holds, None if it is damaged."""
  try:
    # NumPy leaves a file open that it cannot read.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
      arrays = {name: file[name] for name in Embedded._fields}
      digest = str(file["sha256"])
  except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile):
    return None
  whole = files.sha256_of_arrays(arrays) == digest
  return Embedded(**arrays) if whole else None
