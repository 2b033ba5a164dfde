"""What a data set holds, before any image of it is read."""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Iterable, Mapping

from facesiam_jax import errors
from facesiam_jax.data import pairs, trees

SPLITS = ("train", "validation", "test")
_EXAMPLES = 3


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
  """One image.

  Attributes:
    file: its name in the tree.
    split: of `SPLITS`; all images of a person have the same.
    identity: number of the person, the data set's own where it has one; -1
      where it is not known.
    name: of the person.
    number: of the image, the data set's own where it has one.
  """

  file: str
  split: str
  identity: int
  name: str
  number: int


class Problems:
  """What was left out and why: counted, with a few examples of each kind."""

  def __init__(self, *, strict: bool = False) -> None:
    """Starts with none.

    Args:
      strict: the first problem is an error.
    """
    self._strict = strict
    self.counts: dict[str, int] = {}
    self.examples: dict[str, list[str]] = {}

  def add(self, kind: str, what: str) -> None:
    """Counts a problem.

    Args:
      kind: words that follow a count, such as "images that are empty".
      what: the file or row.

    Raises:
      UserError: if problems are errors.
    """
    what = printable(what)
    if self._strict:
      raise errors.UserError(
        f"--strict: {what} is among the {kind}: mend or remove it, or leave"
        " --strict away to have such counted and left out."
      )
    self.counts[kind] = self.counts.get(kind, 0) + 1
    shown = self.examples.setdefault(kind, [])
    if len(shown) < _EXAMPLES:
      shown.append(what)

  def lines(self) -> list[str]:
    """Returns a line for each kind: count, kind, examples."""
    return [
      f"{count:,} {kind} ({', '.join(self.examples[kind])}"
      f"{', ...' if count > len(self.examples[kind]) else ''})"
      for kind, count in self.counts.items()
    ]


@dataclasses.dataclass
class Listing:
  """The images of a data set, who they show and what they are for.

  Attributes:
    tree: where the images are read from.
    items: the images; `in_order` sorts them.
    problems: what was left out.
    partitions: those the data set has by its own rules; one of them without
      an image is told.
    protocols: name -> pairs of files to be compared.
    alignment: name of the way the faces are framed.
    box: what is cut out of every image, as in `encoded.keep`; None keeps all.
    facts: whatever else a reader of the data set may want, as JSON values.
  """

  tree: trees.Tree
  items: list[Item]
  problems: Problems
  partitions: tuple[str, ...] = ()
  protocols: dict[str, pairs.KeyPairs] = dataclasses.field(default_factory=dict)
  alignment: str = "unknown"
  box: tuple[float, float, float] | None = None
  facts: dict[str, object] = dataclasses.field(default_factory=dict)


def in_order(items: Iterable[Item]) -> list[Item]:
  """Sorts images by split, person, number and file."""
  return sorted(
    items,
    key=lambda i: (SPLITS.index(i.split), i.identity, i.number, i.file),
  )


def printable(name: str) -> str:
  """Returns a file name as one line of text that can be stored anywhere.

  Bytes of it that are not UTF-8, line breaks and other characters that do not
  show become backslash escapes.
  """
  return "".join(
    c if c.isprintable() else c.encode("unicode_escape").decode() for c in name
  )


def canonical(name: str) -> str:
  """Returns one spelling of a person's name or number.

  Accents are composed (macOS decomposes them) and the zeros before a number
  go: "07201" and "7201" are one person.
  """
  name = unicodedata.normalize("NFC", printable(name)).strip()
  return str(int(name)) if name.isascii() and name.isdigit() else name


def draw(name: str) -> float:
  """Returns a number in [0, 1) that a person always has, whoever else is there.

  A hash, not a random generator, whose stream may change between releases.
  """
  digest = hashlib.sha256(canonical(name).encode()).digest()
  return int.from_bytes(digest[:7], "big") / 2**56


def lowest(names: Iterable[str], count: int) -> set[str]:
  """Returns the people of the lowest `draw`, as many as asked for."""
  return set(sorted(names, key=lambda name: (draw(name), name))[:count])


def assign(
  people: Mapping[str, str],
  *,
  num_validation: int | None = None,
  num_test: int | None = None,
  share: float = 0.0,
) -> dict[str, str]:
  """Moves training people to validation and test, by a stable hash.

  Args:
    people: name -> split, for everybody.
    num_validation: how many training people become validation people; None
      takes those whose `draw` falls in a share of the range, so that a person
      stays where he is when others come.
    num_test: how many training people become test people, chosen first.
    share: of the training people, for each of the two that is None.

  Returns:
    Name -> split, for everybody.

  Raises:
    UserError: if there are fewer training people than asked for.
  """
  result = dict(people)
  wanted = {"test": num_test, "validation": num_validation}
  bounds = {"test": (0.0, share), "validation": (share, 2 * share)}
  for split, count in wanted.items():
    left = [name for name in result if result[name] == "train"]
    if count is None:
      low, high = bounds[split]
      chosen = {name for name in left if low <= draw(name) < high}
    elif count > len(left):
      raise errors.UserError(
        f"--num_{split}={count} is more than the {len(left)} people there are"
        " to choose from."
      )
    else:
      chosen = lowest(left, count)
    result |= dict.fromkeys(chosen, split)
  return result
