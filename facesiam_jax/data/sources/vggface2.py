"""VGGFace2: the trees `train/n000002/0001_01.jpg` and `test/n000001/...`.

In one folder, .tar or .zip, whatever is above `train` and `test`.

References: Cao et al. 2018, VGGFace2: A dataset for recognising faces across
pose and age.
"""

import contextlib
import re
from collections.abc import Iterator

from facesiam_jax import errors
from facesiam_jax.data import catalogue, listing, trees
from facesiam_jax.data.sources import images

_IMAGE = re.compile(r"(?:.*/)?(train|test)/n([0-9]{6})/[^/]+")


def read(tree: trees.Tree, problems: listing.Problems) -> listing.Listing:
  """Lists VGGFace2's images; its two partitions have nobody in common.

  Args:
    tree: holds train, test or both.
    problems: where images elsewhere are counted.

  Returns:
    The listing; identity is the number of n000002, an image's number its place
    among the person's files.

  Raises:
    UserError: if there is no such image, or a person is in both.
  """
  people: dict[int, tuple[str, list[str]]] = {}
  for file in images.in_tree(tree, problems):
    match = _IMAGE.fullmatch(file)
    if match is None:
      problems.add("images that are not train|test/n000001/<image>", file)
      continue
    split, files = people.setdefault(int(match[2]), (match[1], []))
    if split != match[1]:
      raise errors.UserError(
        f"{tree.path}: n{match[2]} is in train and in test, which have nobody"
        " in common: unpack VGGFace2 again, into an empty folder."
      )
    files.append(file)
  if not people:
    raise errors.UserError(
      f"{tree.path} holds no image named as VGGFace2's train/n000002/"
      "0001_01.jpg: give the folder that holds train and test."
    )
  items = [
    listing.Item(file, split, who, f"n{who:06d}", number)
    for who, (split, files) in sorted(people.items())
    for number, file in enumerate(files)
  ]
  return listing.Listing(
    tree,
    items,
    problems,
    partitions=("train", "test"),
    alignment="vggface2",
  )


@contextlib.contextmanager
def opened(
  options: catalogue.Options, problems: listing.Problems
) -> Iterator[tuple[str, listing.Listing]]:
  """Opens VGGFace2; yields the data set's variant and its listing."""
  with trees.open_tree(options.manual_dir) as tree:
    yield options.variant, read(tree, problems)
