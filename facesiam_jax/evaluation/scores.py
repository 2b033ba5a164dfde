"""The scores behind a report, kept so that runs can be compared pair by pair.

scores.npz lies beside metrics.json. It holds no names and no photos: an image
is the SHA-256 of its file or record, a person a number.
"""

import io
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax import errors, files

FILE = "scores.npz"
_VERSION = 1
_BASELINE = "baseline/"


class Scores(NamedTuple):
  """All pairs of N images, scored.

  Attributes:
    similarity: float32 [N, N], symmetric, 0 on the diagonal.
    identity_ids: person of each image, numbered from 0 in the order in which
      they come, int32 [N].
    image_ids: SHA-256 of each image, uint8 [N, 32].
    threshold: decision threshold, None where none is known.
    bundle: fingerprint of the bundle, hex.
    data: fingerprint of the images and who is who, hex.
    baselines: name -> similarity of other methods on the same images.
  """

  similarity: np.ndarray
  identity_ids: np.ndarray
  image_ids: np.ndarray
  threshold: float | None
  bundle: str
  data: str
  baselines: dict[str, np.ndarray]

  def of(self, rows: np.ndarray) -> "Scores":
    """Returns the scores of some images, in their order."""
    chosen = np.ix_(rows, rows)
    people = numbered(self.identity_ids[rows])
    return self._replace(
      similarity=self.similarity[chosen],
      identity_ids=people,
      image_ids=self.image_ids[rows],
      data=data_fingerprint(self.image_ids[rows], people),
      baselines={n: s[chosen] for n, s in self.baselines.items()},
    )


def numbered(identity_ids: ArrayLike) -> np.ndarray:
  """Numbers people from 0 in the order in which they come, int32 [N]."""
  _, first, places = np.unique(
    np.asarray(identity_ids), return_index=True, return_inverse=True
  )
  return np.argsort(np.argsort(first))[places].astype(np.int32)


def data_fingerprint(image_ids: np.ndarray, identity_ids: np.ndarray) -> str:
  """Returns the SHA-256, hex, of images and who is who, in their order."""
  return files.sha256_of_arrays(
    {"images": image_ids, "people": numbered(identity_ids)}
  )


def digests(texts: Sequence[str]) -> np.ndarray:
  """Returns SHA-256 given in hex as uint8 [N, 32]."""
  raw = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8)
  return raw.reshape(-1, 32)


def packed(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  image_ids: np.ndarray,
  *,
  threshold: float | None,
  bundle: str,
  baselines: Mapping[str, ArrayLike],
) -> bytes:
  """Returns the content of scores.npz; of each pair one number is kept.

  Args:
    similarity: float [N, N], symmetric; kept as float32.
    identity_ids: person of each image, int [N].
    image_ids: SHA-256 of each image, uint8 [N, 32].
    threshold: decision threshold, or None.
    bundle: fingerprint, hex.
    baselines: name -> similarity of another method.

  Returns:
    The bytes.

  Raises:
    ValueError: if there is not one SHA-256 an image.
  """
  people = numbered(identity_ids)
  if image_ids.shape != (people.size, 32):
    raise ValueError(
      f"image_ids must have shape [{people.size}, 32], got {image_ids.shape}"
    )
  above = np.triu_indices(people.size, 1)
  upper = lambda matrix: np.asarray(matrix)[above].astype(np.float32)
  arrays = {
    "version": np.int32(_VERSION),
    "scores": upper(similarity),
    "identity_ids": people,
    "image_ids": image_ids,
    "threshold": np.float64(np.nan if threshold is None else threshold),
    "bundle": np.str_(bundle),
    "data": np.str_(data_fingerprint(image_ids, people)),
    **{f"{_BASELINE}{n}": upper(s) for n, s in baselines.items()},
  }
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)  # type: ignore[arg-type]
  return buffer.getvalue()


def find(run: str | os.PathLike[str]) -> pathlib.Path:
  """Returns where the scores of a run are.

  Args:
    run: a report's folder, or the workdir of a run with report/ in it.

  Raises:
    errors.UserError: if there are none.
  """
  folder = pathlib.Path(run)
  for place in (folder / FILE, folder / "report" / FILE):
    if place.is_file():
      return place
  if not folder.is_dir():
    raise errors.UserError(
      f"{folder} is no folder: name a workdir or a report's folder."
    )
  raise errors.UserError(
    f"{folder} holds no report with {FILE}; run `facesiam evaluate` on it "
    "(again, if it was made by an older version)."
  )


def read(run: str | os.PathLike[str]) -> Scores:
  """Reads the scores of a run.

  Args:
    run: as of `find`.

  Raises:
    errors.UserError: if there are none, or they are damaged or of a newer
      version.
  """
  path = find(run)
  broken = f"{path} is damaged: run `facesiam evaluate` again."
  try:
    # Through memory: NumPy leaves a file open that it cannot read.
    content = io.BytesIO(path.read_bytes())
    with np.load(content, allow_pickle=False) as file:
      arrays = dict(file)
    version = int(arrays["version"])
  except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
    raise errors.UserError(broken) from error
  if version != _VERSION:
    raise errors.UserError(
      f"{path} is of version {version} and this facesiam reads {_VERSION}: "
      "run `facesiam evaluate` again."
    )
  try:
    return _unpacked(arrays)
  except (ValueError, KeyError, IndexError, TypeError) as error:
    raise errors.UserError(broken) from error


def _unpacked(arrays: Mapping[str, np.ndarray]) -> Scores:
  people, images = arrays["identity_ids"], arrays["image_ids"]
  threshold = float(arrays["threshold"])
  known = arrays["data"].item()
  if known != data_fingerprint(images, people):
    raise ValueError("the images are not those of the fingerprint")
  return Scores(
    _matrix(arrays["scores"], people.size),
    people,
    images,
    None if np.isnan(threshold) else threshold,
    arrays["bundle"].item(),
    known,
    {
      name.removeprefix(_BASELINE): _matrix(values, people.size)
      for name, values in arrays.items()
      if name.startswith(_BASELINE)
    },
  )


def _matrix(values: np.ndarray, size: int) -> np.ndarray:
  if not np.isfinite(values).all():
    raise ValueError("scores must be finite")
  matrix = np.zeros((size, size), np.float32)
  i, j = np.triu_indices(size, 1)
  if values.shape != i.shape:
    raise ValueError(f"{size} images have {i.size} pairs, got {values.shape}")
  matrix[i, j] = matrix[j, i] = values
  return matrix
