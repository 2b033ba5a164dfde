"""Text files that come with data sets: who is in which image, and for what."""

import os
import pathlib
import re

from facesiam_jax import errors
from facesiam_jax.data import listing

# The longest official list, CelebA's identities, has 3.4 million bytes.
_MAX_BYTES = 256 * 2**20


def read_text(path: str | os.PathLike[str]) -> str:
  """Returns the content of a text file.

  Args:
    path: UTF-8, with or without a byte order mark.

  Raises:
    UserError: if it is missing, unreadable, no text or too large.
  """
  path = pathlib.Path(path)
  try:
    # A pipe would wait for ever.
    if path.exists() and not path.is_file():
      raise errors.UserError(f"{path} is no file: give a text file.")
    if path.stat().st_size > _MAX_BYTES:
      raise errors.UserError(f"{path} is too large to be a list: check it.")
    return path.read_bytes().decode("utf-8-sig")
  except FileNotFoundError as error:
    raise errors.UserError(
      f"{path} does not exist: put it there, under its official name."
    ) from error
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f"{path} is not a text file (byte {error.start} is no UTF-8): download it"
      " again."
    ) from error
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be read ({error.strerror}): check its permissions."
    ) from error


def read_lines(path: str | os.PathLike[str]) -> list[tuple[int, str]]:
  """Returns the lines of a text file that are not blank, with their numbers.

  Args:
    path: as in `read_text`, any line ends.

  Returns:
    (number from 1, text without the blanks around it).

  Raises:
    UserError: as `read_text` does.
  """
  lines = enumerate(read_text(path).split("\n"), 1)
  return [(number, line.strip()) for number, line in lines if line.strip()]


def bad_line(
  path: str | os.PathLike[str], number: int, wanted: str
) -> errors.UserError:
  """Returns the error to raise for a line that is not as it should be."""
  return errors.UserError(
    f"{path}, line {number}: should be {wanted}; download or mend the file."
  )


def read_numbers(
  path: str | os.PathLike[str],
  what: str,
  problems: listing.Problems,
  *,
  largest: int = 2**31 - 1,
) -> dict[str, int]:
  """Reads lines of a name and a number, such as `000001.jpg 2880`.

  A name that occurs twice is a problem: with the same number it counts once,
  with another it is left out.

  Args:
    path: the file.
    what: the number's meaning, for messages.
    problems: where repeated names are counted.
    largest: number that is allowed.

  Returns:
    Name -> number.

  Raises:
    UserError: if the file cannot be read, or a line is none of that form.
  """
  found: dict[str, int] = {}
  contradicting = set()
  base = pathlib.Path(path).name
  for line_number, line in read_lines(path):
    name, _, value = line.rpartition(" ")
    name = name.strip()
    # Ten digits at most: int() of thousands of them would take its time.
    number = int(value) if re.fullmatch("[0-9]{1,10}", value) else -1
    if not name or not 0 <= number <= largest:
      raise bad_line(path, line_number, f"a file name and {what}")
    if name not in found:
      found[name] = number
    elif found[name] == number:
      problems.add(f"repeated rows in {base}", name)
    else:
      contradicting.add(name)
  for name in sorted(contradicting):
    problems.add(f"files to which {base} gives two different numbers", name)
    del found[name]
  return found
