"""Where prepared data sets lie, and who may write there."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from facesiam_jax import errors


def data_root(data_dir: str | None, name: str) -> pathlib.Path:
  """Returns the folder that holds all prepared data sets.

  Args:
    data_dir: what the user gave; None or "" means $TFDS_DATA_DIR, else
      ~/tensorflow_datasets.
    name: of the data set, for the message.

  Returns:
    The folder, which need not exist.

  Raises:
    UserError: if it is not on a local disk.
  """
  folder = data_dir or os.environ.get("TFDS_DATA_DIR")
  folder = folder or "~/tensorflow_datasets"
  if "://" in folder:
    raise errors.UserError(
      f"The {name} data set needs a local folder, not {folder}: choose one"
      " with --data_dir."
    )
  return pathlib.Path(folder).expanduser()


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
  """Holds an exclusive lock; the system frees it when the process dies."""
  with path.open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def unwritable(
  name: str, root: pathlib.Path, error: BaseException
) -> errors.UserError:
  """Returns the error to raise when a data set cannot be written.

  Args:
    name: of the data set.
    root: where it was to be written.
    error: what went wrong; array_record reports a full disk as a
      RuntimeError with a long text.
  """
  reason = getattr(error, "strerror", None) or str(error).split(";")[0]
  return errors.UserError(
    f"Cannot write the {name} data set to {root} ({reason}): free some"
    " space there, or choose another folder with --data_dir."
  )
