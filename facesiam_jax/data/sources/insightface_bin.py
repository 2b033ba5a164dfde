"""insightface's verification sets: agedb_30.bin, cfp_fp.bin, lfw.bin and more.

A pickle of (list of encoded images, list of booleans): images 2 i and 2 i + 1
are pair i, the boolean says whether they show one person. Who that is, is not
said. The faces are aligned to 112x112 pixels (ArcFace's template).
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

from facesiam_jax import errors
from facesiam_jax.data import (
  catalogue,
  listing,
  pairs,
  safe_pickle,
  trees,
)
from facesiam_jax.data.sources import folder

# Seven times the largest published one.
MAX_BYTES = 2**30
PROTOCOL = "pairs"


def read(path: pathlib.Path, problems: listing.Problems) -> listing.Listing:
  """Lists the images and the pairs of a .bin file.

  Args:
    path: the file.
    problems: the listing's.

  Returns:
    The listing: identity -1 for all, one protocol, "pairs".

  Raises:
    UserError: if it is missing, too large, damaged, or holds other things.
  """
  images, same = _content(path)
  files = {
    str(i): hashlib.sha256(data).hexdigest() for i, data in enumerate(images)
  }
  tree = trees.Tree(path, files, {}, lambda name: images[int(name)])
  items = [listing.Item(str(i), "test", -1, "", i) for i in range(len(images))]
  return listing.Listing(
    tree,
    items,
    problems,
    partitions=("test",),
    protocols={PROTOCOL: pairs.in_folds(same)},
    alignment="arcface_112",
  )


def _content(path: pathlib.Path) -> tuple[list[bytes], list[bool]]:
  try:
    if not path.is_file():
      raise errors.UserError(
        f"{path} is no file: give a .bin file of insightface's with"
        " --manual_dir."
      )
    if path.stat().st_size > MAX_BYTES:
      raise errors.UserError(f"{path} is too large for a .bin test set.")
    content = safe_pickle.loads(path.read_bytes())
  except safe_pickle.Refused as error:
    raise errors.UserError(
      f"{path} is not one of insightface's .bin sets: {error}; download it"
      " again from where it is published."
    ) from error
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be read ({error.strerror}): check its permissions."
    ) from error
  if not _is_set(content):
    raise errors.UserError(
      f"{path} is not one of insightface's .bin sets: these hold a list of"
      " encoded images, two for each pair, and a list of booleans."
    )
  return list(content[0]), [bool(value) for value in content[1]]


def _is_set(content: Any) -> bool:
  kinds = (list, tuple)
  return (
    isinstance(content, kinds)
    and len(content) == 2
    and all(isinstance(part, kinds) for part in content)
    and len(content[0]) == 2 * len(content[1]) > 0
    and all(isinstance(image, bytes) for image in content[0])
    # Python 2's oldest protocol writes booleans as 0 and 1.
    and all(type(v) in (bool, int) and v in (0, 1) for v in content[1])
  )


@contextlib.contextmanager
def opened(
  options: catalogue.Options, problems: listing.Problems
) -> Iterator[tuple[str, listing.Listing]]:
  """Reads a .bin file; yields the data set's variant and its listing."""
  content = read(options.manual_dir, problems)
  yield options.variant or folder.default_variant(options.manual_dir), content
