"""Names of people, as different data sets spell them."""

import unicodedata
from collections.abc import Sequence


def normal_name(name: str) -> str:
  """Returns one spelling of a person's name, or number.

  Case, accents of Latin letters, and what stands between the words do not
  count, nor do zeros before a number: "Beyonce_Knowles" and "beyoncé  knowles"
  are one. Marks of other scripts are letters there and stay.
  """
  kept = []
  base = ""
  for c in unicodedata.normalize("NFKD", name):
    if not unicodedata.category(c).startswith("M"):
      base = c
      kept.append(c if c.isalnum() else " ")
    elif not base.isascii():
      kept.append(c)
  words = " ".join("".join(kept).casefold().split())
  return str(int(words)) if words.isascii() and words.isdigit() else words


def same_names(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
  """Finds names that occur in both, by `normal_name`.

  Args:
    a: names.
    b: names.

  Returns:
    Places in a and b of each pair, sorted. A name with neither letter nor
    digit is nobody's.
  """
  places: dict[str, list[int]] = {}
  for j, name in enumerate(b):
    places.setdefault(normal_name(name), []).append(j)
  places.pop("", None)
  return [
    (i, j)
    for i, name in enumerate(a)
    for j in places.get(normal_name(name), ())
  ]
