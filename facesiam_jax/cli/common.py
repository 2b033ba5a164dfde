"""What the verbs share: their common flags, tables and files out."""

import contextlib
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from absl import flags

from facesiam_jax import errors, files

# Said where all embeddings are one.
COLLAPSED = (
  "every photo got the same embedding: this network tells nobody apart."
)


_HUGE_PAGES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_TUNABLES = "GLIBC_TUNABLES"


class UsageError(flags.Error):
  """A wrong command line: printed as one sentence, exit status 2."""


def quiet(verbosity: int) -> None:
  """Keeps the libraries' own remarks off the screen unless asked for.

  Args:
    verbosity: the flag; above 0 shows what they log.
  """
  from absl import logging as absl_logging

  if verbosity > 0:
    absl_logging.set_verbosity(absl_logging.INFO)
    return
  # Read by XLA's C++ when JAX is loaded: 2 leaves errors only.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # Orbax and asyncio log the traceback of what is raised, and told, anyway.
  absl_logging.set_verbosity(absl_logging.FATAL)
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)
  # "An NVIDIA GPU may be present ...": the CPU was what was wanted.
  logging.getLogger("jax").setLevel(logging.ERROR)


def keep_compiled() -> None:
  """Has JAX keep compiled programs on disk, so that a second command is quick.

  They lie in $JAX_COMPILATION_CACHE_DIR, else in facesiam_jax/ of the user's
  cache folder; to be called before JAX is loaded.
  """
  os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(files.user_cache() / "jax")
  )
  # Also the small ones: a command compiles twenty of them.
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def huge_pages_environment(
  environment: Mapping[str, str], policy: pathlib.Path = _HUGE_PAGES
) -> dict[str, str] | None:
  """Returns an environment in which the C library asks for huge pages.

  Args:
    environment: of this process.
    policy: Linux's file that says who gets huge pages.

  Returns:
    The environment with one variable more; None where Linux gives them to all
    or to nobody, is not Linux, or the variable is set already.
  """
  try:
    on_request = "[madvise]" in policy.read_text()
  except OSError:
    return None
  if _TUNABLES in environment or not on_request:
    return None
  return {**environment, _TUNABLES: "glibc.malloc.hugetlb=1"}


def restart_with_huge_pages() -> None:
  """Starts this process's program anew, as the same process, with huge pages.

  XLA takes the memory of a training step from the C library and gives it back
  after it. Where Linux hands that out, zeroed, in pages of 4 kB, a step on CPU
  takes 1.1 to 1.2 times as long. The C library reads its settings when it is
  loaded, so this is the only way to ask. Where it cannot be, it is not.
  """
  environment = huge_pages_environment(os.environ)
  if environment is None or not sys.executable:
    return
  sys.stdout.flush()
  sys.stderr.flush()
  with contextlib.suppress(OSError):
    os.execve(sys.executable, sys.orig_argv, environment)


def define_bundle(flag_values: flags.FlagValues) -> None:
  """Defines the required flag --bundle."""
  flags.DEFINE_string(
    "bundle",
    None,
    "Folder of the model bundle, as `facesiam train` or `facesiam import` "
    "writes it. Required.",
    required=True,
    flag_values=flag_values,
  )


def define_gallery(flag_values: flags.FlagValues) -> None:
  """Defines the required flag --gallery, and --key_file."""
  flags.DEFINE_string(
    "gallery",
    None,
    "The gallery: a file on a local disk. Required.",
    required=True,
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    "key_file",
    None,
    "The key of an encrypted gallery. A new gallery is encrypted with it; "
    "where there is no such file it is made, and must not be lost.",
    flag_values=flag_values,
  )


def define_json(flag_values: flags.FlagValues) -> None:
  """Defines the flag --json."""
  flags.DEFINE_bool(
    "json", False, "Print JSON, not a table.", flag_values=flag_values
  )


def define_prior(flag_values: flags.FlagValues) -> None:
  """Defines the flag --prior."""
  flags.DEFINE_float(
    "prior",
    0.5,
    "Probability that two faces are of one person before they are looked at; "
    "probabilities are told at it. Decisions do not depend on it.",
    flag_values=flag_values,
  )


def prior(flag_values: flags.FlagValues) -> float:
  """Returns --prior.

  Raises:
    UsageError: unless it lies inside 0..1.
  """
  if not 0 < flag_values.prior < 1:
    raise UsageError(
      f"--prior={flag_values.prior:g} must lie between 0 and 1, without these."
    )
  return float(flag_values.prior)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  """Returns a table as aligned plain text; columns of numbers to the right.

  Args:
    header: one word a column.
    rows: cells as text, as many a row as the header has.

  Returns:
    Lines without trailing space.
  """
  columns = list(zip(header, *rows, strict=True))
  widths = [max(map(len, column)) for column in columns]

  def is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()

  right = [all(map(is_number, column[1:])) for column in columns]
  lines = []
  for row in (header, *rows):
    cells = [
      cell.rjust(width) if is_right else cell.ljust(width)
      for cell, width, is_right in zip(row, widths, right, strict=True)
    ]
    lines.append("  ".join(cells).rstrip())
  return "\n".join(lines)


def write_file(
  path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]
) -> None:
  """Writes a file whole or not at all.

  Args:
    path: what to make or replace.
    write: writes the content to the open file it is given.

  Raises:
    UserError: if the folder is missing or cannot be written to.
    OSError: if there is no space left.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise errors.UserError(f"{path} is a folder; name a file in it.")
  try:
    with files.replacing(path) as file:
      write(file)
  except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
    raise errors.UserError(
      f"{path} cannot be written ({error.strerror}); make its folder "
      f"{path.parent}, or give this user write permission on it."
    ) from error
