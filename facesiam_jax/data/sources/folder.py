"""Any tree of `<person>/<image>`: a folder, a .tar or a .zip."""

import collections
import contextlib
import pathlib
import re
from collections.abc import Iterator, Mapping

from facesiam_jax import errors
from facesiam_jax.data import catalogue, listing, lists, trees
from facesiam_jax.data.sources import images

# Of the people, to validation and to test each, where nothing else is said.
SHARE = 0.1


def read_partition(
  path: pathlib.Path, problems: listing.Problems
) -> dict[str, str]:
  """Reads who or what is in which split.

  Args:
    path: lines `name split`, where the name is a person's or an image file's
      and the split train, validation or test, or CelebA's 0, 1 or 2; more
      words in a line are passed over, and lines that begin with #.
    problems: where contradictions are counted.

  Returns:
    Canonical name -> split.

  Raises:
    UserError: if it cannot be read or a line is none of these.
  """
  numbers = {str(n): split for n, split in enumerate(listing.SPLITS)}
  known = numbers | {split: split for split in listing.SPLITS}
  found: dict[str, str] = {}
  contradicting = set()
  for number, line in lists.read_lines(path):
    if line.startswith("#"):
      continue
    # A person's name may have blanks: then tabs part the columns.
    words = line.split("\t") if "\t" in line else line.rsplit(None, 1)
    if len(words) < 2 or words[1] not in known:
      raise lists.bad_line(
        path, number, "a name and train, validation, test, 0, 1 or 2"
      )
    name, split = listing.canonical(words[0]), known[words[1]]
    if found.setdefault(name, split) != split:
      contradicting.add(name)
  for name in sorted(contradicting):
    problems.add(f"names that {path.name} puts into two partitions", name)
    del found[name]
  return found


def read(
  tree: trees.Tree,
  problems: listing.Problems,
  *,
  partition: Mapping[str, str] | None = None,
  num_validation: int | None = None,
  num_test: int | None = None,
) -> listing.Listing:
  """Lists the images of a tree with one folder a person.

  The person folders lie at one depth, that of most images, whatever is above
  them; images elsewhere are left out and counted. Two folders with a name that
  differs in the spelling of an accent only are one person.

  Args:
    tree: the files.
    problems: where what is left out is counted.
    partition: name of a person, or of an image file -> split; people it does
      not name are left out and counted. None splits by a stable hash.
    num_validation: as in `listing.assign`; with a partition None means none.
    num_test: likewise.

  Returns:
    The listing; people are numbered from 0 in the order of their names.

  Raises:
    UserError: if there is no person folder with an image, if the images of a
      person are in two splits, or fewer people than asked for.
  """
  people = _people(tree, problems)
  if not people:
    raise errors.UserError(
      f"{tree.path} holds no image in <person>/<image>: give the folder or the"
      " archive that holds one folder a person."
    )
  if partition is not None:
    known = _by_partition(people, partition, problems, str(tree.path))
    num_validation, num_test = num_validation or 0, num_test or 0
  else:
    known = dict.fromkeys(people, "train")
  splits = listing.assign(
    known, num_validation=num_validation, num_test=num_test, share=SHARE
  )
  items = [
    listing.Item(file, splits[name], identity, name, number)
    for identity, (name, files) in enumerate(sorted(people.items()))
    if name in splits
    for number, file in enumerate(files)
  ]
  return listing.Listing(
    tree, items, problems, partitions=listing.SPLITS if partition else ()
  )


def _people(
  tree: trees.Tree, problems: listing.Problems
) -> dict[str, list[str]]:
  """Returns person -> files, at the depth that has most images."""
  files = images.in_tree(tree, problems)
  depths = collections.Counter(name.count("/") for name in files)
  del depths[0]
  people: dict[str, list[str]] = {}
  if not depths:
    return people
  depth = min(depths, key=lambda d: (-depths[d], d))
  for name in files:
    if name.count("/") == depth:
      # Not `canonical`: a folder's name stays as it is, but for its accents.
      person = _composed(images.folder_of(name))
      people.setdefault(person, []).append(name)
    else:
      problems.add("images that are not in <person>/<image>", name)
  return people


def _composed(name: str) -> str:
  same = listing.canonical(name)
  return listing.printable(name).strip() if same.isdigit() else same


def _by_partition(
  people: Mapping[str, list[str]],
  partition: Mapping[str, str],
  problems: listing.Problems,
  what: str,
) -> dict[str, str]:
  """Returns person -> split, by the person's name or his images' names."""
  splits = {}
  for person, files in people.items():
    split = partition.get(listing.canonical(person))
    by_image = {partition.get(file.split("/")[-1], "") for file in files} - {""}
    if split is None and len(by_image) > 1:
      raise errors.UserError(
        f"--partition: the images of {person} in {what} are in the partitions"
        f" {' and '.join(sorted(by_image))}: a person must be in one."
      )
    if split is None and not by_image:
      problems.add("people in no partition", person)
    else:
      splits[person] = split or by_image.pop()
  return splits


def default_variant(path: pathlib.Path) -> str:
  """Returns the name of the data set that is made of a folder or archive."""
  name = path.resolve().name
  stem = path.stem if path.is_file() else name
  return re.sub(r"[^A-Za-z0-9_.-]+", "_", listing.printable(stem)) or "folder"


@contextlib.contextmanager
def opened(
  options: catalogue.Options, problems: listing.Problems
) -> Iterator[tuple[str, listing.Listing]]:
  """Opens a tree; yields the data set's variant and its listing."""
  partition = None
  if options.partition:
    partition = read_partition(options.partition, problems)
  with trees.open_tree(options.manual_dir) as tree:
    content = read(
      tree,
      problems,
      partition=partition,
      num_validation=options.num_validation,
      num_test=options.num_test,
    )
    content.alignment = options.alignment or content.alignment
    yield options.variant or default_variant(options.manual_dir), content
