"""A run's directory: one run at a time, one config for ever."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator

import ml_collections

from facesiam_jax import errors, files
from facesiam_jax.training import config as config_lib

_CONFIG = "config.json"


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Makes the directory if needed and holds it for this process.

  The lock is the operating system's, so a killed run leaves none behind.

  Args:
    workdir: the run's directory.

  Yields:
    It, as a path.

  Raises:
    errors.UserError: if it cannot be made or another run holds it.
  """
  if "://" in os.fspath(workdir):
    raise errors.UserError(
      f"--workdir={os.fspath(workdir)} is no folder; give one on a disk, which "
      "all processes of a run must see."
    )
  path = pathlib.Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    file = (path / ".lock").open("w")
  except (FileExistsError, NotADirectoryError) as error:
    raise errors.UserError(
      f"--workdir={path} is a file; give a directory."
    ) from error
  except PermissionError as error:
    raise errors.UserError(
      f"--workdir={path} cannot be written to; give a directory of yours."
    ) from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno not in (errno.EACCES, errno.EAGAIN):
        raise
      raise errors.UserError(
        f"another run is at work in --workdir={path}; wait for it to end or "
        "give another directory."
      ) from error
    yield path


@contextlib.contextmanager
def told_when_full(workdir: str | os.PathLike[str]) -> Iterator[None]:
  """Says in one sentence that the disk is full, wherever that was met.

  Args:
    workdir: the run's directory.

  Yields:
    Nothing.

  Raises:
    errors.UserError: where writing failed for want of room.
  """
  try:
    yield
  except OSError as error:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
      raise
    raise errors.UserError(
      f"no space left for the run in --workdir={os.fspath(workdir)}; free some "
      "and run the same command again, it resumes from the last complete "
      "checkpoint."
    ) from error


def read_config(workdir: str | os.PathLike[str]) -> ml_collections.ConfigDict:
  """Returns the config of the run in a directory.

  Args:
    workdir: the run's directory.

  Returns:
    The config, locked.

  Raises:
    errors.UserError: if there is no run, or its config cannot be read.
  """
  path = pathlib.Path(workdir) / _CONFIG
  try:
    fields = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise errors.UserError(
      f"--workdir={workdir} holds no run ({_CONFIG} is missing); train one "
      "first with `facesiam train`."
    ) from error
  except (json.JSONDecodeError, UnicodeDecodeError) as error:
    raise errors.UserError(
      f"{path} is damaged; give another --workdir or restore the file."
    ) from error
  return ml_collections.ConfigDict(fields).lock()


def claim(
  workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
  """Records the config of a new run, or checks that the old one is the same.

  Args:
    workdir: the run's directory, locked.
    config: the run's config, complete.

  Returns:
    The config.

  Raises:
    errors.UserError: if the directory holds a run of another config, naming
      the fields that differ.
  """
  if not (workdir / _CONFIG).exists():
    files.write(workdir / _CONFIG, config_lib.to_json(config) + "\n")
    return config
  differing = config_lib.differences(config, read_config(workdir))
  if differing:
    raise errors.UserError(
      f"--workdir={workdir} holds a run of another config (differs in "
      f"{', '.join(differing)}); give another --workdir or that run's config."
    )
  return config
