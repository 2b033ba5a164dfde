"""CelebA with identities, from the files as they are published.

`img_align_celeba.zip` (or the folder unpacked from it), `identity_CelebA.txt`
and `list_eval_partition.txt` in one folder. tfds's own celeb_a has no
identities.

References: Liu et al. 2015, Deep Learning Face Attributes in the Wild.
"""

import collections
import contextlib
import pathlib
from collections.abc import Iterator, Mapping

from facesiam_jax import errors
from facesiam_jax.data import catalogue, listing, lists, trees
from facesiam_jax.data.sources import folder, images

IDENTITIES = "identity_CelebA.txt"
PARTITION = "list_eval_partition.txt"
IMAGES = "img_align_celeba"

# What to cut out of the published 178x218 for the framing of a template. Found
# by laying such cuts over 150 of the same photos aligned by five landmarks:
# the best mean correlation of both is here.
BOXES = {"arcface_112": (27.25 / 178, 54.75 / 218, 122.2 / 178)}

NUM_IMAGES = 202_599
NUM_PEOPLE = {"train": 8192, "validation": 985, "test": 1000}


@contextlib.contextmanager
def open_images(manual_dir: pathlib.Path) -> Iterator[trees.Tree]:
  """Opens img_align_celeba.zip, or the folder of that name.

  Args:
    manual_dir: where they lie.

  Yields:
    The images.

  Raises:
    UserError: if there is neither, or as `trees.open_tree` does.
  """
  archive = manual_dir / f"{IMAGES}.zip"
  folder = manual_dir / IMAGES
  if not archive.is_file() and not folder.is_dir():
    raise errors.UserError(
      f"{manual_dir} holds no {archive.name}: put CelebA's {archive.name},"
      f" {IDENTITIES} and {PARTITION} there, under these names."
    )
  with trees.open_tree(archive if archive.is_file() else folder) as tree:
    yield tree


def read(
  tree: trees.Tree,
  manual_dir: pathlib.Path,
  problems: listing.Problems,
  *,
  partition: Mapping[str, str] | None = None,
  num_validation: int | None = None,
  num_test: int | None = None,
  alignment: str = "",
) -> listing.Listing:
  """Lists the images with CelebA's own numbers of people and partitions.

  Args:
    tree: the images, from `open_images`.
    manual_dir: where the two lists lie.
    problems: where rows without image and images without row are counted.
    partition: person's number -> split, for people who are to be in another
      than the official one.
    num_validation: training people who become validation people besides, by a
      stable hash; None means none.
    num_test: likewise.
    alignment: a key of `BOXES`; "" keeps the published framing.

  Returns:
    The listing.

  Raises:
    UserError: if a list is missing or damaged, the images of a person are in
      two partitions, or a full set has other numbers of people than published.
  """
  identities = lists.read_numbers(
    manual_dir / IDENTITIES, "a person's number", problems
  )
  parts = lists.read_numbers(
    manual_dir / PARTITION, "0, 1 or 2", problems, largest=2
  )
  official = _people(identities, parts, manual_dir)
  files = {name.split("/")[-1]: name for name in images.in_tree(tree, problems)}
  _count_missing(files, identities, parts, problems)
  there = [n for n in files if n in identities and n in parts]
  here = {identities[name] for name in there}
  if len(files) >= NUM_IMAGES:
    _check_full(official, here)
  given = {str(who): official[who] for who in here}
  given |= {
    who: split for who, split in (partition or {}).items() if who in given
  }
  splits = listing.assign(
    given, num_validation=num_validation or 0, num_test=num_test or 0
  )
  items = [
    listing.Item(
      file=files[name],
      split=splits[str(identities[name])],
      identity=identities[name],
      name=str(identities[name]),
      number=_number(name),
    )
    for name in there
  ]
  return listing.Listing(
    tree,
    items,
    problems,
    partitions=listing.SPLITS,
    alignment=alignment or "celeba",
    box=BOXES.get(alignment),
  )


def _people(
  identities: Mapping[str, int],
  parts: Mapping[str, int],
  manual_dir: pathlib.Path,
) -> dict[int, str]:
  """Returns person -> official split, from all rows, with an image or not."""
  found: dict[int, str] = {}
  for name, person in identities.items():
    if name not in parts:
      continue
    split = listing.SPLITS[parts[name]]
    if found.setdefault(person, split) != split:
      raise errors.UserError(
        f"{manual_dir}: person {person} of {IDENTITIES} has images in two"
        f" partitions of {PARTITION} ({name} in {split}): the two files do not"
        " belong together, download them again."
      )
  return found


def _count_missing(
  files: Mapping[str, str],
  identities: Mapping[str, int],
  parts: Mapping[str, int],
  problems: listing.Problems,
) -> None:
  for name in identities:
    if name not in files:
      problems.add(f"rows of {IDENTITIES} without an image", name)
  for name in files:
    if name not in identities:
      problems.add(f"images that {IDENTITIES} does not name", name)
    elif name not in parts:
      problems.add(f"images that {PARTITION} does not name", name)


def _check_full(official: Mapping[int, str], here: set[int]) -> None:
  counts = collections.Counter(official[person] for person in here)
  if dict(counts) != NUM_PEOPLE:
    raise errors.UserError(
      f"all {NUM_IMAGES:,} images of CelebA are there, but they show"
      f" {dict(counts)} people instead of {NUM_PEOPLE}: {IDENTITIES} or"
      f" {PARTITION} is not the published one, download it again."
    )


def _number(name: str) -> int:
  stem = images.stem_of(name)
  return int(stem) if stem.isascii() and stem.isdigit() else 0


@contextlib.contextmanager
def opened(
  options: catalogue.Options, problems: listing.Problems
) -> Iterator[tuple[str, listing.Listing]]:
  """Opens the official files; yields the variant and the listing."""
  if options.alignment not in ("", *BOXES):
    raise errors.UserError(
      f"--alignment={options.alignment} is not known for celeba_identity; it"
      f" can be {', '.join(BOXES)}, or left away for the published framing."
    )
  partition = None
  if options.partition:
    partition = folder.read_partition(options.partition, problems)
  with open_images(options.manual_dir) as tree:
    content = read(
      tree,
      options.manual_dir,
      problems,
      partition=partition,
      num_validation=options.num_validation,
      num_test=options.num_test,
      alignment=options.alignment,
    )
    names = options.variant, options.alignment
    yield "_".join(name for name in names if name), content
