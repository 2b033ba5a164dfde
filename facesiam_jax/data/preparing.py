"""Writes a data set: each image checked, all of it or none, going on by itself.

The images of a split are written in parts of `PART` images. A part that is
whole is noted beside it with its SHA-256, so that a preparation that was killed
is gone on with where it stopped; the data set gets its name in one step at the
end, when all parts are there. A part of a finished data set that has been
damaged since is written anew, the others are kept.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from facesiam_jax import errors, files
from facesiam_jax.data import (
  encoded,
  listing,
  pairs,
  place,
  prepared,
  shards,
  trees,
)

# Images in a file: what a kill costs at most.
PART = 2048


@dataclasses.dataclass(frozen=True)
class _Part:
  """A file to write: some images of one split, in order."""

  split: str
  number: int
  items: Sequence[listing.Item]

  @property
  def name(self) -> str:
    return f"{self.split}-{self.number:05d}"


@dataclasses.dataclass(frozen=True)
class _Work:
  """A preparation: what is written, from where, to where."""

  content: listing.Listing
  name: str
  size: int | None
  scratch: pathlib.Path
  home: pathlib.Path
  plan: str
  parts: Sequence[_Part]


def prepare(
  content: listing.Listing,
  name: str,
  root: pathlib.Path,
  *,
  size: int | None = None,
) -> prepared.Prepared:
  """Writes a listing's images as a tfds data set, unless it is there already.

  Args:
    content: what is to be in it; its problems grow by the images that are bad.
    name: of the data set, "celeba_identity" or "folder/pins112": its folder.
    root: folder of tfds data sets.
    size: side to which the middle square of each image is scaled, pixels; None
      keeps the images as they are.

  Returns:
    The data set.

  Raises:
    UserError: if no image can be used, the folder cannot be written, or
      problems are errors and there is one.
  """
  work = _plan(content, name, root, size)
  try:
    root.mkdir(parents=True, exist_ok=True)
    with place.locked(root / f"{work.scratch.stem}.lock"):
      if _is_sound(work):
        _count_bad(work, prepared.read_manifest(work.home))
      else:
        _start(work)
        _finish(work, _write_parts(work))
      shutil.rmtree(work.scratch, ignore_errors=True)
  # array_record reports a full disk as a RuntimeError.
  except (OSError, RuntimeError) as error:
    raise place.unwritable(name, root, error) from error
  return prepared.open_prepared(name, root)


def _plan(
  content: listing.Listing, name: str, root: pathlib.Path, size: int | None
) -> _Work:
  items = listing.in_order(content.items)
  rest: list[object] = [size, content.alignment, content.facts]
  rest += [content.protocols]
  # Named only where there is one: older data sets keep their plans.
  rest += [content.box] if content.box else []
  plan = hashlib.sha256(json.dumps(rest).encode())
  for i in items:
    row = i.file, i.split, i.identity, i.name, i.number
    # File names may hold bytes that are no UTF-8: repr escapes them.
    plan.update(
      repr((row, content.tree.files[i.file])).encode(
        "utf-8", "backslashreplace"
      )
    )
  parts = []
  for split in listing.SPLITS:
    of_split = [item for item in items if item.split == split]
    for first in range(0, len(of_split), PART):
      some = of_split[first : first + PART]
      parts.append(_Part(split, first // PART, some))
  return _Work(
    content=content,
    name=name,
    size=size,
    scratch=root / f"{name.replace('/', '-')}.incomplete",
    home=root / name / shards.VERSION,
    plan=plan.hexdigest(),
    parts=parts,
  )


def _is_sound(work: _Work) -> bool:
  """Whether the data set is there, made of the same, and undamaged."""
  manifest = prepared.read_manifest(work.home)
  return manifest.get("plan") == work.plan and not prepared.damaged(work.home)


def _start(work: _Work) -> None:
  """Clears what is of no use, and takes over what is."""
  with contextlib.suppress(OSError):
    if (work.scratch / "plan").read_text() == work.plan:
      return
  shutil.rmtree(work.scratch, ignore_errors=True)
  work.scratch.mkdir()
  manifest = prepared.read_manifest(work.home)
  if manifest.get("plan") == work.plan:
    broken = prepared.damaged(work.home)
    for part in manifest["parts"]:
      if part["file"] and part["file"] not in broken:
        _take_over(work, part)
  files.write(work.scratch / "plan", work.plan)


def _take_over(work: _Work, note: dict[str, Any]) -> None:
  shutil.copyfile(work.home / note["file"], work.scratch / note["name"])
  _write_note(work, note)


def _write_note(work: _Work, note: dict[str, Any]) -> None:
  files.write(work.scratch / f"{note['name']}.json", json.dumps(note))


def _read_note(work: _Work, part: _Part) -> dict[str, Any] | None:
  """Returns the note of a part that is whole, else None."""
  with contextlib.suppress(OSError, ValueError):
    note = json.loads((work.scratch / f"{part.name}.json").read_bytes())
    if files.sha256(work.scratch / part.name) == note["sha256"]:
      return note
  return None


def _write_parts(work: _Work) -> list[dict[str, Any]]:
  """Writes the parts that are not there; returns the notes of all."""
  notes = []
  # disable=None: no bar unless stderr is a terminal.
  with tqdm.tqdm(
    total=len(work.content.items), unit="image", desc=work.name, disable=None
  ) as bar:
    for part in work.parts:
      note = _read_note(work, part)
      if note is None:
        note = _write_part(work, part, bar)
      else:
        bar.update(len(part.items))
      notes.append(note)
  return notes


def _write_part(work: _Work, part: _Part, bar: Any) -> dict[str, Any]:
  path = work.scratch / part.name
  note: dict[str, Any] = {"name": part.name, "bad": {}, "changed": 0}

  def examples() -> Iterator[shards.Example]:
    for at, item in enumerate(part.items):
      bar.update()
      try:
        data = work.content.tree.read(item.file)
        kept = encoded.keep(data, work.size, work.content.box)
      except trees.Unreadable:
        note["bad"][str(at)] = "cannot be read"
        continue
      except encoded.BadImage as error:
        note["bad"][str(at)] = error.kind
        continue
      note["changed"] += kept.changed
      yield shards.Example(
        kept.data,
        item.identity,
        listing.printable(item.name),
        item.number,
        listing.printable(item.file),
      )

  note["images"], note["num_bytes"] = shards.write(path, examples())
  note["sha256"] = files.sha256(path)
  _write_note(work, note)
  return note


def _count_bad(work: _Work, manifest: dict[str, Any]) -> None:
  """Counts the bad images that the notes of the parts tell of."""
  for part, note in zip(work.parts, manifest["parts"], strict=True):
    for at, kind in note["bad"].items():
      work.content.problems.add(f"images that {kind}", part.items[int(at)].file)


def _finish(work: _Work, notes: list[dict[str, Any]]) -> None:
  """Makes a tfds data set of the parts and gives it its name."""
  _count_bad(work, {"parts": notes})
  kept = _kept(work, notes)
  if not kept:
    raise errors.UserError(
      f"{work.content.tree.path} holds no image that can be used:"
      f" {'; '.join(work.content.problems.lines())}."
    )
  ready = work.scratch / "ready"
  shutil.rmtree(ready, ignore_errors=True)
  ready.mkdir()
  dataset = work.name.split("/")[0]
  splits = _name_files(work, notes, ready, dataset)
  shards.write_metadata(
    ready,
    dataset,
    splits,
    encoding="png" if work.size or work.content.box else "jpeg",
    text=f"Faces, prepared by facesiam_jax ({work.name}).",
  )
  _write_pairs(work, kept, ready)
  prepared.write_manifest(
    ready,
    work.content,
    kept,
    name=work.name,
    plan=work.plan,
    size=work.size,
    parts=notes,
  )
  work.home.parent.mkdir(parents=True, exist_ok=True)
  if work.home.exists():
    # Out of the way in one step too.
    work.home.rename(work.scratch / "old")
  ready.rename(work.home)


def _kept(work: _Work, notes: list[dict[str, Any]]) -> list[listing.Item]:
  """Returns the images that are in the parts, in the order of the rows."""
  return [
    item
    for part, note in zip(work.parts, notes, strict=True)
    for at, item in enumerate(part.items)
    if str(at) not in note["bad"]
  ]


def _name_files(
  work: _Work,
  notes: list[dict[str, Any]],
  ready: pathlib.Path,
  dataset: str,
) -> list[shards.Split]:
  """Moves parts that have an image to where tfds looks for them."""
  splits = []
  for split in listing.SPLITS:
    of_split = [
      note
      for part, note in zip(work.parts, notes, strict=True)
      if part.split == split
    ]
    full = [note for note in of_split if note["images"]]
    for note in of_split:
      note["file"] = None
    for number, note in enumerate(full):
      note["file"] = shards.file_name(dataset, split, number, len(full))
      os.replace(work.scratch / note["name"], ready / note["file"])
    if full:
      splits.append(
        shards.Split(
          split,
          [note["images"] for note in full],
          sum(note["num_bytes"] for note in full),
        )
      )
  return splits


def _write_pairs(
  work: _Work, kept: Sequence[listing.Item], ready: pathlib.Path
) -> None:
  """Writes the protocols as rows of what was kept."""
  rows = {item.file: row for row, item in enumerate(kept)}
  arrays = {}
  for protocol, key_pairs in work.content.protocols.items():
    found, missing = pairs.to_rows(key_pairs, rows)
    for key in missing:
      work.content.problems.add(
        f"images of the protocol {protocol} that are not there", key
      )
    for field, values in found._asdict().items():
      arrays[f"{protocol}/{field}"] = values
  if arrays:
    with files.replacing(ready / prepared.PAIRS) as file:
      np.savez_compressed(file, **arrays)
