"""What a protocol compares: images by key, pairs of keys, and who is who."""

import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors, files
from facesiam_jax.data import (
  listing,
  lists,
  pair_files,
  pairs,
  place,
  prepared,
  records,
  trees,
)
from facesiam_jax.data.sources import cfp, lfw
from facesiam_jax.faces import photo

# Protocol -> its name in a prepared data set.
PREPARED = {"view2": "view2", "ff": "FF", "fp": "FP", "pairs": "pairs"}
PAIR_PROTOCOLS = ("view1", *PREPARED)


class Listed(NamedTuple):
  """A protocol of pairs.

  Attributes:
    pairs: by key.
    people: key -> person, or None where it is not known.
    development: view1: the pairs that choose the threshold; else None.
  """

  pairs: pairs.KeyPairs
  people: dict[str, str] | None
  development: pairs.KeyPairs | None = None

  @property
  def keys(self) -> list[str]:
    """All keys, each once, sorted."""
    both = [self.pairs, *([self.development] if self.development else [])]
    return sorted({key for one in both for key in (*one.first, *one.second)})


def photos_below(folder: pathlib.Path) -> list[str]:
  """Returns the images of a folder and its folders, as paths with slashes.

  Raises:
    UserError: if there is none.
  """
  found = sorted(
    path.relative_to(folder).as_posix()
    for path in folder.rglob("*")
    if path.suffix.lower() in photo.SUFFIXES
    and path.is_file()
    and not any(p.startswith(".") for p in path.relative_to(folder).parts)
  )
  if not found:
    raise errors.UserError(
      f"{folder} holds no image ({', '.join(photo.SUFFIXES)}); give the folder "
      "of the photos that are to be compared."
    )
  return found


def read_pairs(path: pathlib.Path) -> pairs.KeyPairs:
  """Reads a file of pairs: `.csv` is a table, all else LFW's format.

  Raises:
    UserError: if it is missing, or is not of that form.
  """
  return _parsed(
    path,
    functools.partial(pair_files.parse, is_csv=path.suffix.lower() == ".csv"),
  )


def read_templates(path: pathlib.Path) -> dict[str, list[tuple[str, str]]]:
  """Reads which photos make a template; raises UserError as `read_pairs`."""
  return _parsed(path, pair_files.parse_templates)


def _parsed(path: pathlib.Path, parse: Callable[[str], Any]) -> Any:
  try:
    return parse(lists.read_text(path))
  except pairs.BadProtocol as error:
    raise errors.UserError(f"{path}, {error}: mend the file.") from error


def in_layout(protocol: str, folder: pathlib.Path) -> Listed:
  """Reads a protocol from a data set in its published layout.

  Args:
    protocol: view1 and view2 want LFW's lists in the folder or beside it, ff
      and fp CFP's Data and Protocol below it.
    folder: of the images.

  Raises:
    UserError: if the lists are not there, or not as published.
  """
  if protocol in ("ff", "fp"):
    return _in_cfp(protocol.upper(), folder)
  wanted = {"view2": ("view2",), "view1": ("view1_test", "view1_train")}
  if protocol not in wanted:
    raise errors.UserError(
      f"--protocol={protocol} needs the file of its pairs: give --pairs=FILE."
    )
  found = []
  for name in wanted[protocol]:
    base = lfw.PAIRS[name]
    near = [folder / base, folder.parent / base]
    there = [path for path in near if path.is_file()]
    if not there:
      raise errors.UserError(
        f"{base} is neither in {folder} nor beside it: put LFW's lists there, "
        "or give --pairs=FILE."
      )
    found.append(read_pairs(there[0]))
  return listed(*found)


def listed(
  test: pairs.KeyPairs, development: pairs.KeyPairs | None = None
) -> Listed:
  """Returns a protocol whose people are read from its keys, where they agree.

  Args:
    test: the pairs.
    development: those that choose a threshold, or None.
  """
  return Listed(test, pair_files.people_of(test), development)


def _in_cfp(protocol: str, folder: pathlib.Path) -> Listed:
  with trees.open_tree(folder) as tree:
    content = cfp.read(tree, listing.Problems())
  if protocol not in content.protocols:
    raise errors.UserError(
      f"{folder} lacks the lists of the protocol {protocol} "
      f"(Protocol/Split/{protocol}/01/same.txt, ...): unpack all of CFP there."
    )
  found = content.protocols[protocol]
  number = {item.file: str(item.identity) for item in content.items}
  people = {
    key: number.get(key) or str(int(key.split("/")[0]))
    for key in (*found.first, *found.second)
  }
  return Listed(found, people)


def files_digest(folder: pathlib.Path, paths: Sequence[str]) -> str:
  """Returns the SHA-256 of files and of their names, hex."""
  digest = hashlib.sha256()
  for path in paths:
    digest.update(f"{path}\0{files.sha256(folder / path)}\n".encode())
  return digest.hexdigest()


class Rows(NamedTuple):
  """Pairs of a prepared data set.

  Attributes:
    listed: the protocol; a key is the number of a row, as text.
    images: uint8 [N, H, W, C] of the rows in `keys`, on the disk.
    keys: of the images, length N.
    fingerprint: of the data set.
  """

  listed: Listed
  images: Any
  keys: list[str]
  fingerprint: str


def of_prepared(
  name: str,
  protocol: str,
  bundle: bundle_lib.Bundle,
  *,
  any_alignment: bool = False,
) -> Rows:
  """Opens the published pairs of a data set that `facesiam prepare` wrote.

  Args:
    name: of the data set, "insightface_bin/lfw".
    protocol: of `PAIR_PROTOCOLS`.
    bundle: what is to embed the faces.
    any_alignment: take faces that are framed otherwise than the bundle's.

  Raises:
    UserError: if the data set is not there or damaged, has no such protocol,
      lacks images of it, or frames its faces otherwise.
  """
  data = prepared.open_prepared(name, place.data_root(None, name))
  if not any_alignment and data.alignment != bundle.alignment:
    raise errors.UserError(
      f"the faces of --dataset={name} are framed as {data.alignment!r} and "
      f"this --bundle wants {bundle.alignment!r}; give the folder of its "
      "photos, or --cropped to take them as they are."
    )
  lost = [
    line
    for line in data.manifest["problems"]
    if "images of the protocol" in line
  ]
  if lost:
    raise errors.UserError(
      f"--dataset={name} was prepared without some images of its pairs "
      f"({lost[0]}): prepare it from all of them, or give the folder of "
      "photos, where --allow_missing counts their pairs."
    )
  data.check()
  wanted = ["view1_test", "view1_train"]
  wanted = wanted if protocol == "view1" else [PREPARED[protocol]]
  found = [_key_pairs(data.pairs(one)) for one in wanted]
  parts = [
    (data.folder, split, data.num_images(split))
    for split in listing.SPLITS
    if data.num_images(split)
  ]
  result = Listed(found[0], None, *found[1:])
  keys = sorted(result.keys, key=int)
  shape = (*bundle.input_size, bundle.channels)
  images = records.open_images(parts, shape, 1.0)[np.array(keys, int)]
  if data.has_identities:
    names = {str(n): one.name for n, one in enumerate(data.rows())}
    result = result._replace(people={key: names[key] for key in keys})
  return Rows(
    result, images, keys, files.sha256(data.folder / prepared.MANIFEST)
  )


def _key_pairs(found: pairs.Pairs) -> pairs.KeyPairs:
  return pairs.KeyPairs(
    [str(row) for row in found.first],
    [str(row) for row in found.second],
    found.same.tolist(),
    found.fold.tolist(),
  )
