"""Files of pairs to be compared: LFW's text format, or CSV `a,b,same`.

Pure functions of text. LFW's format names people and numbers of their images,
CSV paths of images below a folder; the keys are as in `pairs`.
"""

import csv
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from facesiam_jax.data import pairs

_PAIR_HEADS = (["a", "b", "same"], ["a", "b", "same", "fold"])
_TEMPLATE_HEADS = (["template", "photo"], ["template", "photo", "medium"])
_SAME = {"1": True, "true": True, "0": False, "false": False}
_LFW_IMAGE = re.compile(r"(?P<who>.+)_(?P<number>[0-9]{4,9})")


def parse(text: str, *, is_csv: bool) -> pairs.KeyPairs:
  """Reads a file of pairs.

  Args:
    text: the file's content.
    is_csv: a table with the columns a, b, same (1, 0, true, false) and perhaps
      fold (numbers from 0); else LFW's format.

  Returns:
    The pairs; without that column, CSV is one fold. A key of CSV is what is in
    its cell, with slashes.

  Raises:
    BadProtocol: if a line is not of that form, naming it, or there is no pair.
  """
  if not is_csv:
    return pairs.parse_lfw_pairs(text)
  result = pairs.KeyPairs([], [], [], [])
  for number, cells in _table(text, _PAIR_HEADS):
    same = _SAME.get(cells[2].lower())
    fold = (cells[3:] or ["0"])[0]
    if same is None or not re.fullmatch("[0-9]{1,9}", fold):
      raise pairs.BadProtocol(
        f"line {number}: same should be 1 or 0, and fold a number"
      )
    result.first.append(_slashes(cells[0]))
    result.second.append(_slashes(cells[1]))
    result.same.append(same)
    result.fold.append(int(fold))
  return result


def parse_templates(text: str) -> dict[str, list[tuple[str, str]]]:
  """Reads which photos make a template.

  Args:
    text: a table with the columns template, photo and perhaps medium.

  Returns:
    Template -> (photo, medium) of each; without that column a photo is its own
    medium.

  Raises:
    BadProtocol: if a line is not of that form, or there is no template.
  """
  result: dict[str, list[tuple[str, str]]] = {}
  for _, cells in _table(text, _TEMPLATE_HEADS):
    result.setdefault(cells[0], []).append((_slashes(cells[1]), cells[-1]))
  return result


def _table(
  text: str, heads: Sequence[list[str]]
) -> Iterator[tuple[int, list[str]]]:
  """Yields line numbers and cells below a head that is one of `heads`."""
  rows = csv.reader(text.splitlines(), strict=True)
  try:
    lines = [[cell.strip() for cell in row] for row in rows]
  except csv.Error as error:
    raise pairs.BadProtocol(f"line {rows.line_num}: {error}") from error
  head = [cell.lower() for cell in lines[0]] if lines else []
  if head not in heads:
    wanted = " or ".join(",".join(one) for one in heads)
    raise pairs.BadProtocol(f"line 1: should be {wanted}")
  count = 0
  for number, cells in enumerate(lines[1:], 2):
    if not any(cells):
      continue
    if len(cells) != len(head) or not all(cells):
      raise pairs.BadProtocol(f"line {number}: should be {','.join(head)}")
    count += 1
    yield number, cells
  if not count:
    raise pairs.BadProtocol("line 2: should be there, but the table is empty")


def _slashes(path: str) -> str:
  return path.replace("\\", "/")


def people_of(key_pairs: pairs.KeyPairs) -> dict[str, str] | None:
  """Returns the person of each key: what is before its last slash.

  Args:
    key_pairs: the pairs.

  Returns:
    Key -> person; None where such names disagree with what the pairs say of
    who is the same, as of files that lie in no folder of a person.
  """
  found = {
    key: key.rpartition("/")[0] for key in (*key_pairs.first, *key_pairs.second)
  }
  agree = all(
    (found[a] == found[b]) == same and found[a] and found[b]
    for a, b, same in zip(*key_pairs[:3], strict=True)
  )
  return found if agree else None


def index_files(paths: Sequence[str]) -> dict[str, int]:
  """Finds the names by which pairs may call files.

  Args:
    paths: of images, with slashes, from the folder that pairs are in.

  Returns:
    Key -> place in `paths`, for each file by its path, by its path without
    suffix, and, if named as LFW's Ada/Ada_0003.jpg, by `pairs.lfw_key`, however
    deep that folder lies.
  """
  found: dict[str, int] = {path: place for place, path in enumerate(paths)}
  for place, path in enumerate(paths):
    pure = pathlib.PurePosixPath(path)
    found.setdefault(pure.with_suffix("").as_posix(), place)
    match = _LFW_IMAGE.fullmatch(pure.stem)
    if match and match["who"] == pure.parent.name:
      key = pairs.lfw_key(match["who"], int(match["number"]))
      found.setdefault(key, place)
  return found


def missing(
  key_pairs: pairs.KeyPairs, known: Mapping[str, object]
) -> list[str]:
  """Returns the keys of pairs that are not known, each once, sorted."""
  return sorted({*key_pairs.first, *key_pairs.second} - known.keys())
