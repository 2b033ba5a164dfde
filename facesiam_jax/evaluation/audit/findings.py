"""What an audit finds in one or two data sets, and what to leave out of it."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from facesiam_jax.data import names
from facesiam_jax.evaluation.audit import copies, hashing, people
from facesiam_jax.evaluation.audit.reading import Images

TRAIN, TEST = "train", "test"
SURE, LOOK = "sure", "look"
# Bits of `hashing.phash`, of 256, that may differ between copies of a photo.
# Of the 8.8 million pairs of a face of pins112 and a mirrored other one, which
# are no copies, none differs in 40 or fewer, one in 48 and 14 in 56. Among its
# own faces 43 pairs do, 42 of them of one person; one that differs in 40 is of
# two.
MOST = 40
# From here on copies are sure. A hundred pairs of pins112 and CelebA with a
# correlation from 0.99 on were looked at: from 0.995 on they are one photo,
# below that a few are two of one moment.
_SURE_BITS, _SURE_CORRELATION = 32, 0.995


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two images, or two people shown by an image each.

  Attributes:
    kind: of `TITLES`.
    grade: `SURE`, or `LOOK` for what a person should look at.
    where: the sets that it is in, ("train", "test"), or one of them twice.
    rows: an image of each.
    figure: what was measured, as words.
    details: the same for audit.json.
  """

  kind: str
  grade: str
  where: tuple[str, str]
  rows: tuple[int, int]
  figure: str
  details: dict[str, Any]


TITLES = {
  "people_by_name": "People in both, by name or number",
  "images_by_name": "Images in both, by name or number",
  "identical": "Identical images",
  "near_identical": "Nearly identical images",
  "copies": "One photo, framed or cut in two ways",
  "people_alike": "People who look like one",
  "label_suspects": "Images that may show somebody else",
}
# Found by embeddings only.
BY_EMBEDDING = ("copies", "people_alike", "label_suspects")


@dataclasses.dataclass(frozen=True)
class Findings:
  """Everything that was found.

  Attributes:
    sets: "train" and, where two were compared, "test" -> its images.
    pairs: what was found, by kind, the surest first.
    chance: "train-test" and so on -> how alike two people are by chance; None
      where there are too few people to say. Empty without embeddings.
  """

  sets: dict[str, Images]
  pairs: list[Pair]
  chance: dict[str, people.Chance | None]

  def of(self, kind: str) -> list[Pair]:
    """Returns the pairs of a kind."""
    return [pair for pair in self.pairs if pair.kind == kind]


def find(
  train: Images, test: Images | None = None, metric: str | None = None
) -> Findings:
  """Compares two data sets, and each with itself.

  Args:
    train: the data set to train on.
    test: the one to test on; None looks at `train` alone.
    metric: of the embeddings, "cosine" or "euclidean"; None without any.

  Returns:
    What was found.
  """
  sets = {TRAIN: train} if test is None else {TRAIN: train, TEST: test}
  places = [(TRAIN, TEST), (TRAIN, TRAIN), (TEST, TEST)]
  places = [where for where in places if set(where) <= set(sets)]
  pairs = [] if test is None else [*_by_name(train, test)]
  known = {pair.rows for pair in pairs if pair.kind == "images_by_name"}
  for where in places:
    pairs += _copies(sets, where, metric, known if len(set(where)) > 1 else ())
  chance: dict[str, people.Chance | None] = {}
  if metric is not None:
    for where in places:
      alike, chance["-".join(where)] = _alike(sets, where)
      pairs += alike
    for name, images in sets.items():
      pairs += _suspects(images, name)
  # A stable sort: the surest of a kind stays first.
  pairs.sort(key=lambda pair: ([*TITLES].index(pair.kind), pair.grade != SURE))
  return Findings(sets, pairs, chance)


def _first_rows(images: Images) -> np.ndarray:
  """Returns the first image of each person, int64 [P]."""
  return np.unique(images.person, return_index=True)[1]


def _by_name(train: Images, test: Images) -> Iterable[Pair]:
  """Finds people of one name, and among their images those of one name."""
  a, b = _first_rows(train), _first_rows(test)
  same = names.same_names(train.people, test.people)
  where = TRAIN, TEST
  for i, j in same:
    rows = int(a[i]), int(b[j])
    yield Pair("people_by_name", SURE, where, rows, "same name", {})
  stems: dict[tuple[int, str], list[int]] = collections.defaultdict(list)
  for row, (person, file) in enumerate(
    zip(test.person, test.files, strict=True)
  ):
    stems[int(person), _stem(file)].append(row)
  for i, j in same:
    for row in np.flatnonzero(train.person == i).tolist():
      for other in stems.get((j, _stem(train.files[row])), ()):
        rows = row, other
        yield Pair("images_by_name", LOOK, where, rows, "same file name", {})


def _stem(file: str) -> str:
  return names.normal_name(pathlib.PurePosixPath(file).stem)


def _copies(
  sets: dict[str, Images],
  where: tuple[str, str],
  metric: str | None,
  known: Iterable[tuple[int, int]],
) -> list[Pair]:
  """Finds identical and nearly identical images, also mirrored ones."""
  a, b = (sets[name] for name in where)
  inside = where[0] == where[1]
  same = _identical(a, b, inside)
  found = [
    Pair("identical", SURE, where, rows, "same pixels", {}) for rows in same
  ]
  near = _near(a, b, inside)
  for rows, (bits, mirrored) in sorted(near.items(), key=lambda n: n[1]):
    if rows not in same:
      figure = f"{bits} bits differ{', mirrored' if mirrored else ''}"
      details = {"bits": bits, "mirrored": mirrored}
      grade = SURE if bits <= _SURE_BITS else LOOK
      found.append(Pair("near_identical", grade, where, rows, figure, details))
  if metric is None or a.embeddings is None or b.embeddings is None:
    return found
  pairs = copies.nearest(a.embeddings, None if inside else b.embeddings, metric)
  typical = copies.typical_sq(a.embeddings, a.person)
  pairs = copies.near(pairs, a.embeddings, b.embeddings, typical)
  told = same | near.keys() | set(known)
  for copy in copies.confirm(pairs, a.small, b.small):
    if (copy.i, copy.j) not in told:
      figure = f"correlation {copy.correlation:.3f}"
      figure += ", mirrored" if copy.mirrored else ""
      measured = {
        "correlation": round(copy.correlation, 4),
        "mirrored": copy.mirrored,
      }
      rows = copy.i, copy.j
      grade = SURE if copy.correlation >= _SURE_CORRELATION else LOOK
      found.append(Pair("copies", grade, where, rows, figure, measured))
  return found


def _identical(a: Images, b: Images, inside: bool) -> set[tuple[int, int]]:
  places: dict[bytes, list[int]] = collections.defaultdict(list)
  for j, digest in enumerate(b.digests):
    places[digest].append(j)
  return {
    (i, j)
    for i, digest in enumerate(a.digests)
    for j in places.get(digest, ())
    if not inside or i < j
  }


def _near(
  a: Images, b: Images, inside: bool
) -> dict[tuple[int, int], tuple[int, bool]]:
  """Returns rows -> (bits that differ, mirrored) of nearly identical images."""
  near: dict[tuple[int, int], tuple[int, bool]] = {}
  for hashes, mirrored in ((b.hashes, False), (b.mirrored, True)):
    found = hashing.near_pairs(a.hashes, hashes, MOST)
    for i, j, bits in zip(*found, strict=True):
      rows = int(i), int(j)
      if not inside or i < j:
        near[rows] = min(near.get(rows, (999, True)), (int(bits), mirrored))
  return near


def _alike(
  sets: dict[str, Images], where: tuple[str, str]
) -> tuple[list[Pair], people.Chance | None]:
  """Finds people who look like one."""
  a, b = (sets[name] for name in where)
  inside = where[0] == where[1]
  sums = [
    people.summarise(_embeddings(s), s.person, len(s.people)) for s in (a, b)
  ]
  known = [] if inside else names.same_names(a.people, b.people)
  alike, chance = people.alike(
    sums[0], None if inside else sums[1], known=known
  )
  many = chance is not None and chance.pairs >= people.FEWEST_FOR_SURE
  rows = _first_rows(a), _first_rows(b)
  found = [
    Pair(
      "people_alike",
      SURE if many and pair.expected <= people.SURE else LOOK,
      where,
      (int(rows[0][pair.i]), int(rows[1][pair.j])),
      f"likeness {pair.value:.3f}, {pair.expected:.2g} such pairs by chance",
      {"likeness": round(pair.value, 4), "expected": pair.expected},
    )
    for pair in alike
  ]
  return found, chance


def _suspects(images: Images, name: str) -> list[Pair]:
  first = _first_rows(images)
  found, _ = people.suspects(
    _embeddings(images), images.person, len(images.people)
  )
  return [
    Pair(
      "label_suspects",
      SURE if s.expected is not None and s.expected <= people.SURE else LOOK,
      (name, name),
      (s.row, int(first[s.other])),
      f"own {s.own:.3f}, other {s.nearest:.3f}",
      {
        "own": round(s.own, 4),
        "other": round(s.nearest, 4),
        "expected": s.expected,
      },
    )
    for s in found
  ]


def _embeddings(images: Images) -> np.ndarray:
  assert images.embeddings is not None
  return images.embeddings


def shown(findings: Findings, pair: Pair) -> list[tuple[str, int]]:
  """Returns which images tell an eye whether a pair is one.

  Args:
    findings: where the pair is from.
    pair: of two people, or of an image and the person whom it is like.

  Returns:
    (set, row) of a few images of each of two people; of an image under a
    suspicious name, it, two of that name and two of whom it is like; else of
    the two images.
  """
  (name, other), (i, j) = pair.where, pair.rows
  if pair.kind.startswith("people"):
    return _some(findings, name, i, 3) + _some(findings, other, j, 3)
  if pair.kind == "label_suspects":
    own = [at for at in _some(findings, name, i, 3) if at[1] != i]
    return [(name, i), *own[:2], *_some(findings, name, j, 2)]
  return [(name, i), (other, j)]


def _some(
  findings: Findings, name: str, row: int, many: int
) -> list[tuple[str, int]]:
  """Returns images of the person of a row, spread over what there is."""
  images = findings.sets[name]
  rows = np.flatnonzero(images.person == images.person[row])
  places = np.unique(np.linspace(0, len(rows) - 1, many).astype(int))
  return [(name, int(rows[place])) for place in places]


def exclusions(findings: Findings) -> dict[tuple[str, str], tuple[str, str]]:
  """Says what to leave out of the training set, and why.

  People who are in the test set too, by name or look; of two who look like one
  inside the training set the one with fewer images; images of which the test
  set has a copy; images that may show somebody else; and copies that lie under
  two people. Nothing of the test set: what one leaves out of a test flatters.

  Returns:
    ("person", number) or ("image", "number/image number") -> grade, reason.
  """
  found: dict[tuple[str, str], tuple[str, str]] = {}
  # The sure ones first, whose grade and reason stay.
  for pair in sorted(findings.pairs, key=lambda pair: pair.grade != SURE):
    for key in _leaves_out(findings.sets[TRAIN], pair):
      found.setdefault(key, (pair.grade, f"{pair.kind}: {pair.figure}"))
  gone = {
    number
    for (kind, number), (grade, _) in found.items()
    if kind == "person" and grade == SURE
  }
  return {
    key: why
    for key, why in found.items()
    if key[0] == "person" or key[1].split("/")[0] not in gone
  }


def _leaves_out(train: Images, pair: Pair) -> list[tuple[str, str]]:
  """Returns what of the training set a pair speaks against."""
  if pair.where[0] != TRAIN:
    return []
  i, j = pair.rows
  inside = pair.where[1] == TRAIN
  if pair.kind in ("people_by_name", "people_alike"):
    row = _smaller(train, i, j) if inside else i
    return [("person", str(train.identities[row]))]
  if pair.kind == "label_suspects" or not inside:
    return [_image(train, i)]
  if train.person[i] != train.person[j]:
    return [_image(train, i), _image(train, j)]
  return []


def _image(images: Images, row: int) -> tuple[str, str]:
  return "image", f"{images.identities[row]}/{images.numbers[row]}"


def _smaller(images: Images, i: int, j: int) -> int:
  """Returns the row whose person has fewer images; of equals the second."""
  n = np.bincount(images.person)
  return i if n[images.person[i]] < n[images.person[j]] else j


def counts(findings: Findings) -> list[tuple[str, str, int, int, int]]:
  """Counts what was found.

  Returns:
    (kind, grade, between both sets, inside train, inside test), for each kind
    and grade of which there is one, and for each kind that was looked for.
  """
  tally = collections.Counter(
    (pair.kind, pair.grade, pair.where) for pair in findings.pairs
  )
  rows = []
  for kind in TITLES:
    if kind in BY_EMBEDDING and not findings.chance:
      continue
    if kind.endswith("by_name") and TEST not in findings.sets:
      continue
    grades = {k[1] for k in tally if k[0] == kind} or {""}
    for grade in sorted(grades, reverse=True):
      both, train, test = (
        tally[kind, grade, where]
        for where in ((TRAIN, TEST), (TRAIN, TRAIN), (TEST, TEST))
      )
      rows.append((kind, grade, both, train, test))
  return rows
