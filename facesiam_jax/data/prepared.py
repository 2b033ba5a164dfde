"""Data sets that `facesiam prepare` wrote: what is in them, and reading it.

Beside tfds's own files a prepared data set has `facesiam.json` (counts, what
was left out, the SHA-256 of every file), `people.txt` (who is in which split;
`prepare --partition` reads it) and, where it has protocols, `pairs.npz`.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from facesiam_jax import errors, files
from facesiam_jax.data import listing, pairs, shards

MANIFEST = "facesiam.json"
PEOPLE = "people.txt"
PAIRS = "pairs.npz"


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A prepared data set.

  Attributes:
    name: "celeba_identity", "folder/pins112", ...
    folder: holds its files.
    manifest: what facesiam.json says.
  """

  name: str
  folder: pathlib.Path
  manifest: dict[str, Any]

  def num_images(self, split: str) -> int:
    """Returns how many images a split has."""
    return self.manifest["splits"][split]["images"]

  def num_people(self, split: str) -> int:
    """Returns how many people a split has."""
    return self.manifest["splits"][split]["people"]

  @property
  def has_identities(self) -> bool:
    """Whether it is known who is who; some sets have only pairs."""
    return self.manifest["identities"]

  @property
  def alignment(self) -> str:
    """Name of the way its faces are framed."""
    return self.manifest["alignment"]

  def check(self) -> None:
    """Reads every file once and compares it with its SHA-256.

    Raises:
      UserError: if one is missing or damaged.
    """
    broken = damaged(self.folder)
    if broken:
      raise errors.UserError(
        f"{self.folder / sorted(broken)[0]} is missing or damaged: run facesiam"
        f" prepare --dataset={self.name.split('/')[0]} again, which writes it"
        " anew."
      )

  def examples(self, split: str) -> Iterator[shards.Example]:
    """Yields the examples of a split, in the order of the rows.

    Args:
      split: "train", "validation" or "test".

    Raises:
      UserError: if the split has none here.
    """
    if not self.num_images(split):
      raise errors.UserError(
        f"the data set {self.name} in {self.folder} has no image in its"
        f" {split} partition: take another, or prepare it from files that have"
        " one."
      )
    return shards.read(self.folder, split)

  def rows(self) -> Iterator[shards.Example]:
    """Yields all examples: training, validation, test; protocols count so."""
    for split in listing.SPLITS:
      if self.num_images(split):
        yield from shards.read(self.folder, split)

  @property
  def protocols(self) -> tuple[str, ...]:
    """Names of its published pairs."""
    return tuple(self.manifest["protocols"])

  def pairs(self, protocol: str) -> pairs.Pairs:
    """Returns the published pairs of a protocol, as places among `rows`.

    Args:
      protocol: one of `protocols`.

    Raises:
      UserError: if it has no such protocol.
    """
    if protocol not in self.protocols:
      raise errors.UserError(
        f"the data set {self.name} has no protocol {protocol!r}; it has"
        f" {', '.join(self.protocols) or 'none'}."
      )
    with np.load(self.folder / PAIRS) as file:
      return pairs.Pairs(
        *(file[f"{protocol}/{field}"] for field in pairs.Pairs._fields)
      )


def open_prepared(name: str, root: pathlib.Path) -> Prepared:
  """Opens a prepared data set.

  Args:
    name: "celeba_identity", "folder/pins112", ...
    root: folder of tfds data sets.

  Returns:
    The data set; its images are not read yet.

  Raises:
    UserError: if it is not there, naming those that are.
  """
  folder = root / name / shards.VERSION
  manifest = read_manifest(folder)
  if not manifest:
    there = ", ".join(prepared_in(root)) or "none"
    raise errors.UserError(
      f"the data set {name} is not prepared in {root} (there: {there}): run"
      f" facesiam prepare --dataset={name.split('/')[0]} --manual_dir=DIR."
    )
  return Prepared(name, folder, manifest)


def prepared_in(root: pathlib.Path) -> list[str]:
  """Returns the names of the data sets that are prepared in a folder."""
  found = [*root.glob(f"*/*/{MANIFEST}"), *root.glob(f"*/*/*/{MANIFEST}")]
  return sorted(
    str(path.parent.parent.relative_to(root))
    for path in found
    if path.parent.name == shards.VERSION
  )


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
  """Returns what facesiam.json says; empty where there is none to be read."""
  with contextlib.suppress(OSError, ValueError, AttributeError):
    manifest = json.loads((folder / MANIFEST).read_bytes())
    if manifest.pop("sha256", "") == _self_digest(manifest):
      return manifest
  return {}


def _self_digest(manifest: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def damaged(folder: pathlib.Path) -> set[str]:
  """Returns the files of a data set that are not as they were written."""
  manifest = read_manifest(folder)
  wanted = {part["file"]: part["sha256"] for part in manifest["parts"]}
  wanted |= manifest["others"]
  wanted.pop(None, None)
  broken = set()
  for name, digest in wanted.items():
    try:
      sound = files.sha256(folder / name) == digest
    except OSError:
      sound = False
    if not sound:
      broken.add(name)
  return broken


def write_manifest(
  folder: pathlib.Path,
  content: listing.Listing,
  kept: Sequence[listing.Item],
  **fields: Any,
) -> None:
  """Writes people.txt and facesiam.json.

  Args:
    folder: holds all other files already.
    content: what the data set was made of.
    kept: the images that are in it.
    **fields: more fields of facesiam.json.
  """
  images = collections.Counter((item.name, item.split) for item in kept)
  rows = [
    f"{listing.printable(name)}\t{split}\t{count}"
    for (name, split), count in images.items()
  ]
  head = "# Name, split, number of images. For prepare --partition too."
  text = "\n".join([head, *sorted(rows)]) + "\n"
  files.write(folder / PEOPLE, text)
  others = [p for p in folder.iterdir() if shards.SUFFIX not in p.name]
  manifest: dict[str, Any] = {
    "splits": _count(kept),
    "identities": all(item.identity >= 0 for item in kept),
    "alignment": content.alignment,
    "protocols": sorted(content.protocols),
    "partitions": list(content.partitions),
    "problems": content.problems.lines(),
    "facts": content.facts,
    "others": {path.name: files.sha256(path) for path in sorted(others)},
    **fields,
  }
  # Through JSON, as it is read back, for one digest.
  manifest = json.loads(json.dumps(manifest))
  manifest["sha256"] = _self_digest(manifest)
  files.write(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _count(kept: Sequence[listing.Item]) -> dict[str, dict[str, int]]:
  """Returns for each split its images, people, and people with one image."""
  counts = {}
  for split in listing.SPLITS:
    people = collections.Counter(
      item.identity for item in kept if item.split == split
    )
    counts[split] = {
      "images": people.total(),
      "people": len(people),
      "single": sum(count == 1 for count in people.values()),
    }
  return counts
