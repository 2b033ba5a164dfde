"""Labeled Faces in the Wild, in the trees as they are published.

One of the trees `lfw`, `lfw_funneled`, `lfw-deepfunneled` (folder, .tar or
.zip), with `<Name>/<Name>_0001.jpg` in it, and beside it what is there of
`pairs.txt`, `people.txt` (View 2), `pairsDevTrain.txt`, `pairsDevTest.txt`,
`peopleDevTrain.txt` and `peopleDevTest.txt` (View 1).

References: Huang et al. 2007, Labeled Faces in the Wild; Huang et al. 2012,
Learning to Align from Scratch (deep funneling).
"""

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from facesiam_jax import errors
from facesiam_jax.data import catalogue, listing, lists, pairs, trees
from facesiam_jax.data.sources import images

TREES = {
  "original": ("lfw",),
  "funneled": ("lfw_funneled", "lfw-funneled"),
  "deepfunneled": ("lfw-deepfunneled", "lfw_deepfunneled"),
}
PAIRS = {
  "view1_train": "pairsDevTrain.txt",
  "view1_test": "pairsDevTest.txt",
  "view2": "pairs.txt",
}
PEOPLE = {"train": "peopleDevTrain.txt", "test": "peopleDevTest.txt"}
FOLDS = "people.txt"

_T = TypeVar("_T")


def find_tree(
  manual_dir: pathlib.Path, variant: str
) -> tuple[str, pathlib.Path]:
  """Returns the variant and the tree of images in a folder.

  Args:
    manual_dir: the folder.
    variant: of `TREES`, or "" where there is one only.

  Raises:
    UserError: if there is none, or several and none is named.
  """
  if variant and variant not in TREES:
    raise errors.UserError(
      f"--variant={variant} is no version of lfw: it can be {', '.join(TREES)}."
    )
  found = {
    kind: manual_dir / f"{name}{suffix}"
    for kind, names in TREES.items()
    for name in names
    for suffix in (".zip", ".tar", "")
    if (manual_dir / f"{name}{suffix}").exists()
  }
  if variant:
    found = {kind: path for kind, path in found.items() if kind == variant}
  if not found:
    wanted = TREES[variant] if variant else [n[0] for n in TREES.values()]
    raise errors.UserError(
      f"{manual_dir} holds none of {', '.join(wanted)}: unpack LFW's images"
      " there, and put pairs.txt and people.txt beside them."
    )
  if len(found) > 1:
    raise errors.UserError(
      f"{manual_dir} holds several versions of lfw: name one with --variant,"
      f" {' or '.join(found)}."
    )
  return next(iter(found.items()))


def read(
  tree: trees.Tree, manual_dir: pathlib.Path, problems: listing.Problems
) -> listing.Listing:
  """Lists LFW's images and protocols.

  People of View 1's training list are training people and those of its test
  list test people; without these lists, all are test people. A View 2 figure
  of a network that was trained on View 1 people is none.

  Args:
    tree: the images.
    manual_dir: where the lists lie; those that are missing are in
      `facts["missing"]`.
    problems: where misnamed images, people without a list, and images that a
      list names and the tree does not have are counted.

  Returns:
    The listing; people are numbered from 0 in the order of their names,
    `facts["folds"]` has the people of View 2's folds.

  Raises:
    UserError: if there is no image, or a list is not as published.
  """
  people = _people(tree, problems)
  if not people:
    raise errors.UserError(
      f"{tree.path} holds no image named as LFW's <Name>/<Name>_0001.jpg: give"
      " the folder that holds LFW's tree."
    )
  splits = _splits(people, manual_dir, problems)
  items = [
    listing.Item(file, splits[name], identity, name, number)
    for identity, (name, files) in enumerate(sorted(people.items()))
    if name in splits
    for number, file in sorted(files.items())
  ]
  keys = {pairs.lfw_key(i.name, i.number): i.file for i in items}
  protocols = {
    protocol: _on_files(found, keys)
    for protocol, file in PAIRS.items()
    if (found := _parse(manual_dir / file, pairs.parse_lfw_pairs))
  }
  folds = _parse(manual_dir / FOLDS, pairs.parse_lfw_people)
  known = [*PAIRS.values(), *PEOPLE.values(), FOLDS]
  return listing.Listing(
    tree,
    items,
    problems,
    partitions=("test",),
    protocols=protocols,
    facts={
      "folds": [sorted(fold) for fold in folds or ()],
      "missing": [f for f in known if not (manual_dir / f).exists()],
    },
  )


def _people(
  tree: trees.Tree, problems: listing.Problems
) -> dict[str, dict[int, str]]:
  """Returns name -> number of the image -> file."""
  people: dict[str, dict[int, str]] = {}
  for file in images.in_tree(tree, problems):
    match = re.fullmatch(
      r"(?:.*/)?(?P<who>[^/]+)/(?P=who)_([0-9]{4})\.\w+", file
    )
    if match is None:
      problems.add("images that are not named <Name>/<Name>_0001.jpg", file)
      continue
    numbers = people.setdefault(match["who"], {})
    if numbers.setdefault(int(match[2]), file) != file:
      problems.add("images with the number of another", file)
  return people


def _splits(
  people: dict[str, dict[int, str]],
  manual_dir: pathlib.Path,
  problems: listing.Problems,
) -> dict[str, str]:
  """Returns name -> split of everybody who is in one."""
  found: dict[str, str] = {}
  for split, file in PEOPLE.items():
    for fold in _parse(manual_dir / file, pairs.parse_lfw_people) or ():
      for name, count in fold.items():
        if found.setdefault(name, split) != split:
          raise errors.UserError(
            f"{manual_dir}: {name} is in {PEOPLE['train']} and in"
            f" {PEOPLE['test']}, which have nobody in common: download them"
            " again."
          )
        if len(people.get(name, ())) != count:
          problems.add(f"people with other images than {file} counts", name)
  if not found:
    return dict.fromkeys(people, "test")
  for name in people.keys() - found.keys():
    problems.add("people who are in neither list of View 1", name)
  return found


def _parse(path: pathlib.Path, parser: Callable[[str], _T]) -> _T | None:
  """Returns a parsed list, None where there is no such file."""
  if not path.exists():
    return None
  try:
    return parser(lists.read_text(path))
  except pairs.BadProtocol as error:
    raise errors.UserError(
      f"{path} is not as LFW publishes it, {error}: download it again."
    ) from error


def _on_files(found: pairs.KeyPairs, keys: dict[str, str]) -> pairs.KeyPairs:
  """Turns keys into files; a key without one stays, for the report."""
  return found._replace(
    first=[keys.get(key, key) for key in found.first],
    second=[keys.get(key, key) for key in found.second],
  )


@contextlib.contextmanager
def opened(
  options: catalogue.Options, problems: listing.Problems
) -> Iterator[tuple[str, listing.Listing]]:
  """Opens LFW; yields the data set's variant and its listing."""
  variant, path = find_tree(options.manual_dir, options.variant)
  with trees.open_tree(path) as tree:
    content = read(tree, options.manual_dir, problems)
    content.alignment = f"lfw_{variant}"
    yield variant, content
