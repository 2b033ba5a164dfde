"""Lists of people and images that a training set is to do without.

A line is `DATASET person NUMBER` or `DATASET image NUMBER/IMAGE_NUMBER`, with
the numbers of the prepared data set; more words are passed over, and so are
lines that begin with #. `facesiam audit` writes such lists. What is said of a
data set holds for it at another size or in another framing too.
"""

import dataclasses
import os
import re
from collections.abc import Sequence

from facesiam_jax import errors
from facesiam_jax.data import lists

_LINE = re.compile(r"(\S+)\s+(?:person\s+([0-9]+)|image\s+([0-9]+)/([0-9]+))\b")


@dataclasses.dataclass(frozen=True)
class Exclusion:
  """What to leave out of one data set.

  Attributes:
    people: numbers of people.
    images: (number of the person, number of the image).
  """

  people: frozenset[int] = frozenset()
  images: frozenset[tuple[int, int]] = frozenset()

  def covers(self, identity: int, number: int) -> bool:
    """Whether an image is to be left out.

    Args:
      identity: number of its person.
      number: of the image.
    """
    return identity in self.people or (identity, number) in self.images


def read(
  path: str | os.PathLike[str], datasets: Sequence[str]
) -> dict[str, Exclusion]:
  """Reads what a list says of some data sets.

  Args:
    path: the list.
    datasets: names of prepared data sets, "folder/pins112".

  Returns:
    What it excludes of each of them that it names.

  Raises:
    UserError: if it cannot be read, has a line of another form, or says
      nothing of these data sets.
  """
  people: dict[str, set[int]] = {}
  images: dict[str, set[tuple[int, int]]] = {}
  for number, line in lists.read_lines(path):
    if line.startswith("#"):
      continue
    found = _LINE.match(line)
    if not found:
      raise lists.bad_line(
        path, number, "DATASET person NUMBER or DATASET image NUMBER/NUMBER"
      )
    name, person, owner, image = found.groups()
    of_people = people.setdefault(name, set())
    of_images = images.setdefault(name, set())
    if person is not None:
      of_people.add(int(person))
    else:
      of_images.add((int(owner), int(image)))
  told = {
    name: [own for own in people if _covers(own, name)] for name in datasets
  }
  if not any(told.values()):
    raise errors.UserError(
      f"{path} excludes nothing of {', '.join(datasets)} (it is about"
      f" {', '.join(sorted(people)) or 'no data set'}): give the list of this"
      " data set, or none."
    )
  return {
    name: Exclusion(
      frozenset().union(*(people[own] for own in owners)),
      frozenset().union(*(images[own] for own in owners)),
    )
    for name, owners in told.items()
    if owners
  }


def _covers(listed: str, name: str) -> bool:
  """Whether a data set is the listed one, or the same one scaled or cut."""
  return re.fullmatch(rf"{re.escape(listed)}(/.*|_[0-9]+)?", name) is not None
