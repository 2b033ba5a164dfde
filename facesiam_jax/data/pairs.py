"""Pairs of images to be compared, as published protocols list them.

Pure functions: the text of a protocol file in, names or rows out. A protocol
names its images in its own way (a "key": the LFW image "Ada_Lovelace/3", the
CFP image "frontal/7"); `to_rows` turns keys into rows of a data set.

References: Huang et al. 2007, Labeled Faces in the Wild (its README.txt gives
the formats); Sengupta et al. 2016, Frontal to Profile Face Verification in the
Wild.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class KeyPairs(NamedTuple):
  """Pairs of images by key, all of one length.

  Attributes:
    first: key of one image of each pair.
    second: of the other.
    same: whether both show the same person.
    fold: number of the fold a pair is in, from 0.
  """

  first: list[str]
  second: list[str]
  same: list[bool]
  fold: list[int]


class Pairs(NamedTuple):
  """Pairs of images by row of a data set.

  Attributes:
    first: int32 [N].
    second: int32 [N].
    same: bool [N], True for the same person.
    fold: from 0, int32 [N].
  """

  first: np.ndarray
  second: np.ndarray
  same: np.ndarray
  fold: np.ndarray


class BadProtocol(ValueError):
  """A protocol file is not as published; the message says where."""


def to_rows(
  key_pairs: KeyPairs, rows: Mapping[str, int]
) -> tuple[Pairs, list[str]]:
  """Finds the rows of a protocol's images.

  Args:
    key_pairs: the protocol.
    rows: key -> row of the data set.

  Returns:
    The pairs of which both images are there, in the protocol's order; and the
    keys that are not, each once, sorted.
  """
  kept = [
    i
    for i, both in enumerate(
      zip(key_pairs.first, key_pairs.second, strict=True)
    )
    if both[0] in rows and both[1] in rows
  ]
  keys = {*key_pairs.first, *key_pairs.second}
  found = Pairs(
    np.array([rows[key_pairs.first[i]] for i in kept], np.int32),
    np.array([rows[key_pairs.second[i]] for i in kept], np.int32),
    np.array([key_pairs.same[i] for i in kept], np.bool_),
    np.array([key_pairs.fold[i] for i in kept], np.int32),
  )
  return found, sorted(keys - rows.keys())


def lfw_key(name: str, number: int) -> str:
  """Returns the key of LFW's image name/name_000number.jpg."""
  return f"{name}/{number}"


def parse_lfw_pairs(text: str) -> KeyPairs:
  """Reads LFW's pairs.txt, pairsDevTrain.txt or pairsDevTest.txt.

  The first line has the number of folds and of pairs of each kind in a fold
  (View 2), or that of pairs alone (View 1, one fold). Then come, fold by fold,
  that many lines `name n1 n2` of the same person and as many
  `name1 n1 name2 n2` of two.

  Args:
    text: the file's content.

  Returns:
    The pairs, keys by `lfw_key`.

  Raises:
    BadProtocol: if a line is none of these, a pair is of other kind than its
      place says, or there are too few or too many lines.
  """
  lines = _lines(text)
  head = _integers(lines[0][1].split()) if lines else None
  if head is None or len(head) not in (1, 2) or min(head) < 1:
    raise BadProtocol(
      "line 1: should be the number of folds and of pairs, or of pairs"
    )
  folds, each = (1, head[0]) if len(head) == 1 else head
  if len(lines) - 1 != 2 * folds * each:
    raise BadProtocol(
      f"line 1 says {2 * folds * each:,} pairs, but {len(lines) - 1:,} follow"
    )
  result = KeyPairs([], [], [], [])
  for place, (number, line) in enumerate(lines[1:]):
    same = place // each % 2 == 0
    words = line.split("\t") if "\t" in line else line.split()
    one, two = _lfw_pair(words, same, number)
    result.first.append(one)
    result.second.append(two)
    result.same.append(same)
    result.fold.append(place // (2 * each))
  return result


def _lfw_pair(words: list[str], same: bool, number: int) -> tuple[str, str]:
  words = [word.strip() for word in words]
  if same and len(words) == 3:
    name, other, images = words[0], words[0], _integers(words[1:])
  elif not same and len(words) == 4:
    name, other, images = words[0], words[2], _integers(words[1::2])
  else:
    images = None
  if images is None or not name or not other or (not same and name == other):
    form = "`name n1 n2`" if same else "`name1 n1 name2 n2` of two people"
    raise BadProtocol(f"line {number}: should be {form}")
  return lfw_key(name, images[0]), lfw_key(other, images[1])


def parse_lfw_people(text: str) -> list[dict[str, int]]:
  """Reads LFW's people.txt, peopleDevTrain.txt or peopleDevTest.txt.

  people.txt (View 2) has the number of folds in its first line; the other two
  (View 1) are one fold. A fold is a line with the number of people and that
  many lines `name number-of-images`.

  Args:
    text: the file's content.

  Returns:
    For each fold, name -> number of images.

  Raises:
    BadProtocol: if a line is none of these, or a person occurs twice.
  """
  lines = iter(_lines(text))
  heads = [_count(line) for _, line in itertools.islice(_lines(text), 2)]
  folds = 1
  # Two numbers in a row: the first counts the folds.
  if len(heads) == 2 and None not in heads:
    folds = heads[0] or 0
    next(lines)
  result: list[dict[str, int]] = []
  seen: set[str] = set()
  for _ in range(min(folds, len(text))):
    number, line = next(lines, (0, ""))
    count = _count(line)
    if count is None:
      raise BadProtocol(f"line {number}: should be a number of people")
    fold = dict(_lfw_person(*row) for row in itertools.islice(lines, count))
    if len(fold) != count or seen & fold.keys():
      raise BadProtocol(
        f"line {number} says {count:,} people, but other people follow, or some"
        " occur twice"
      )
    seen |= fold.keys()
    result.append(fold)
  left = next(lines, None)
  if left or not result:
    raise BadProtocol(f"line {left[0] if left else 1}: should not be there")
  return result


def _lfw_person(number: int, line: str) -> tuple[str, int]:
  name, _, count = line.replace("\t", " ").rpartition(" ")
  images = _count(count)
  if images is None or not name.strip():
    raise BadProtocol(f"line {number}: should be `name number-of-images`")
  return name.strip(), images


def parse_cfp_list(text: str) -> dict[int, str]:
  """Reads CFP's Pair_list_F.txt or Pair_list_P.txt.

  Args:
    text: lines `7 ../Data/Images/001/frontal/07.jpg`, numbered from 1.

  Returns:
    Number -> "001/frontal/07", the last three parts without suffix.

  Raises:
    BadProtocol: if a line is none of these or a number occurs twice.
  """
  found: dict[int, str] = {}
  for line_number, line in _lines(text):
    match = re.fullmatch(
      r"([0-9]{1,9})\s+(?:.*/)?([^/]+/[^/]+/[^/]+)\.\w+", line
    )
    if not match or int(match[1]) in found:
      raise BadProtocol(
        f"line {line_number}: should be a new number and an image's path"
      )
    found[int(match[1])] = match[2]
  return found


def parse_cfp_pairs(text: str) -> list[tuple[int, int]]:
  """Reads a same.txt or diff.txt of CFP's Protocol/Split.

  Args:
    text: lines `12,345`, numbers of two images in their lists.

  Returns:
    The pairs of numbers.

  Raises:
    BadProtocol: if a line is none of these.
  """
  found = []
  for line_number, line in _lines(text):
    numbers = _integers(line.split(","))
    if numbers is None or len(numbers) != 2:
      raise BadProtocol(f"line {line_number}: should be two numbers, `12,345`")
    found.append((numbers[0], numbers[1]))
  return found


def cfp_protocol(
  folds: Sequence[tuple[str, str]], first: str, second: str
) -> KeyPairs:
  """Puts together one of CFP's protocols, FF or FP.

  Args:
    folds: the text of (same.txt, diff.txt) for each fold.
    first: the text of Pair_list_F.txt.
    second: of Pair_list_F.txt for FF, of Pair_list_P.txt for FP.

  Returns:
    The pairs: in each fold those of the same person, then those of two.

  Raises:
    BadProtocol: as the parsers do, or if a pair's number is not in its list.
  """
  lists = parse_cfp_list(first), parse_cfp_list(second)
  result = KeyPairs([], [], [], [])
  for fold, texts in enumerate(folds):
    for same, text in zip((True, False), texts, strict=True):
      for one, two in parse_cfp_pairs(text):
        if one not in lists[0] or two not in lists[1]:
          raise BadProtocol(
            f"fold {fold + 1} has the pair {one},{two}, but the lists of images"
            " do not go that far"
          )
        result.first.append(lists[0][one])
        result.second.append(lists[1][two])
        result.same.append(same)
        result.fold.append(fold)
  return result


def in_folds(same: Sequence[bool], num_folds: int = 10) -> KeyPairs:
  """Pairs up images that follow each other: 0 with 1, 2 with 3, ...

  As insightface's .bin files do; their folds are stretches of equal length
  (scikit-learn's KFold without shuffling), the first ones longer by one where
  the number of pairs is no multiple.

  Args:
    same: whether each pair is of one person.
    num_folds: number of stretches.

  Returns:
    The pairs; a key is the image's place as text.
  """
  count = len(same)
  stretches = np.array_split(np.arange(count), num_folds)
  fold = [f for f, stretch in enumerate(stretches) for _ in stretch]
  return KeyPairs(
    [str(2 * i) for i in range(count)],
    [str(2 * i + 1) for i in range(count)],
    [bool(value) for value in same],
    fold,
  )


def _lines(text: str) -> list[tuple[int, str]]:
  """Returns the lines that are not blank, with their numbers from 1."""
  lines = ((n, line.strip()) for n, line in enumerate(text.split("\n"), 1))
  return [(number, line) for number, line in lines if line]


def _count(text: str) -> int | None:
  # Nine digits at most: int() of thousands of them would take its time.
  # Stripped by us: int() takes fewer characters for blanks than strip() does.
  word = text.strip()
  return int(word) if re.fullmatch("[0-9]{1,9}", word) else None


def _integers(words: Sequence[str]) -> list[int] | None:
  found = [_count(word) for word in words]
  numbers = [number for number in found if number is not None]
  return numbers if len(numbers) == len(found) else None
