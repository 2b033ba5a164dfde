"""Files that are written whole or not at all, and their digests."""

import contextlib
import hashlib
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:  # every verb's --help imports this file, and no NumPy
  import numpy as np


def user_cache() -> pathlib.Path:
  """Returns facesiam_jax/ of the user's cache folder, which may not exist."""
  base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return pathlib.Path(base) / "facesiam_jax"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
  """Opens a file that takes the place of `path` once it is on the disk.

  A kill, a full disk or an exception leaves what was at `path` before. The
  bytes are flushed to the device before the name changes, so that a power cut
  cannot leave an empty file under it either.

  Args:
    path: what to make or replace; its folder exists.

  Yields:
    A new file in the same folder, open for writing bytes.

  Raises:
    OSError: if it cannot be written.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
  try:
    with temporary.open("xb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def write(path: str | os.PathLike[str], data: str | bytes) -> None:
  """Writes a file whole or not at all; text as UTF-8. See `replacing`."""
  raw = data.encode("utf-8") if isinstance(data, str) else data
  with replacing(path) as file:
    file.write(raw)


def sha256(path: str | os.PathLike[str]) -> str:
  """Returns the SHA-256 of a file, hex.

  Raises:
    OSError: if it cannot be read.
  """
  with pathlib.Path(path).open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_arrays(arrays: Mapping[str, "np.ndarray"]) -> str:
  """Returns the SHA-256 of named arrays, hex.

  Of names, dtypes, shapes and bytes, whatever their order and the file that
  they are in: a .npz has time stamps.
  """
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = arrays[name]
    shape = array.shape or (1,)
    digest.update(f"{name} {array.dtype.str} {shape} ".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()
