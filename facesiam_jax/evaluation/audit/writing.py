"""An audit on disk: audit.json, audit.csv, exclude.txt, a page with images."""

import base64
import csv
import io
import json
import os
import pathlib
from collections.abc import Iterable
from importlib import resources
from typing import Any

import jinja2

from facesiam_jax import errors, files
from facesiam_jax.evaluation.audit import findings as findings_lib
from facesiam_jax.evaluation.audit import reading
from facesiam_jax.evaluation.audit.findings import Findings

PAGE, NUMBERS, TABLE = "audit.html", "audit.json", "audit.csv"
EXCLUDE = "exclude.txt"
# Pairs of a kind that the page shows; the other files have all.
SHOWN = 50


def write(
  out: str | os.PathLike[str], found: Findings, settings: dict[str, Any]
) -> None:
  """Writes the four files; each of them whole or not at all, the page last.

  Args:
    out: folder, made if absent.
    found: what was found.
    settings: what it was found with, as JSON values.

  Raises:
    UserError: if the folder cannot be written.
  """
  out = pathlib.Path(out)
  try:
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers(found, settings), indent=1, ensure_ascii=False)
    files.write(out / NUMBERS, text + "\n")
    files.write(out / TABLE, table(found))
    files.write(out / EXCLUDE, exclusion_text(found, settings))
    files.write(out / PAGE, page(found, settings))
  except OSError as error:
    raise errors.UserError(
      f"the report cannot be written to --out={out} ({error.strerror}): give a"
      " folder of yours with room in it."
    ) from error


def numbers(found: Findings, settings: dict[str, Any]) -> dict[str, Any]:
  """Returns what audit.json holds."""
  return {
    "settings": settings,
    "sets": {
      role: {
        "name": images.source.name,
        "images": len(images.files),
        "people": len(images.people),
        "unreadable": images.unreadable,
      }
      for role, images in found.sets.items()
    },
    "chance": {
      where: None if chance is None else chance._asdict()
      for where, chance in found.chance.items()
    },
    "counts": [
      dict(zip(("kind", "grade", "both", "train", "test"), row, strict=True))
      for row in findings_lib.counts(found)
    ],
    "pairs": [
      {
        "kind": pair.kind,
        "grade": pair.grade,
        **pair.details,
        "images": _images(found, zip(pair.where, pair.rows, strict=True)),
      }
      for pair in found.pairs
    ],
  }


def _images(
  found: Findings, places: Iterable[tuple[str, int]]
) -> list[dict[str, Any]]:
  """Says which images lie at some (set, row)."""
  return [
    {
      "set": role,
      "person": images.people[images.person[row]],
      "person_number": int(images.identities[row]),
      "image_number": int(images.numbers[row]),
      "file": images.files[row],
    }
    for role, row in places
    for images in [found.sets[role]]
  ]


def table(found: Findings) -> str:
  """Returns all pairs as CSV: a line each, with both images."""
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  columns = ("set", "person", "person_number", "image_number", "file")
  writer.writerow(
    ["kind", "grade", "figure"]
    + [f"{column}_{side}" for side in "ab" for column in columns]
  )
  for pair in found.pairs:
    two = _images(found, zip(pair.where, pair.rows, strict=True))
    cells = [image[column] for image in two for column in columns]
    writer.writerow([pair.kind, pair.grade, pair.figure, *cells])
  return text.getvalue()


def exclusion_text(found: Findings, settings: dict[str, Any]) -> str:
  """Returns the list of what to leave out of the training set.

  It holds numbers, no names; `data.exclusion` reads it. What is to be looked at
  first stands there as a comment.
  """
  name = found.sets[findings_lib.TRAIN].source.name.split(":")[0]
  # A blank in a folder's name would end the column.
  name = "_".join(name.split())
  lines = [
    "# What to leave out of a training set: --config.dataset.exclude=FILE",
    f"# Made by: {settings['command']}",
    "# Lines that begin with '# look:' are left out once that is removed.",
  ]
  rows = findings_lib.exclusions(found)
  by_number = sorted(
    rows.items(), key=lambda r: (r[0][0], [int(n) for n in r[0][1].split("/")])
  )
  for (kind, number), (grade, reason) in by_number:
    head = "" if grade == findings_lib.SURE else "# look: "
    lines.append(f"{head}{name}\t{kind}\t{number}\t{reason}")
  return "\n".join(lines) + "\n"


def page(found: Findings, settings: dict[str, Any]) -> str:
  """Returns the page: one HTML text with its images inside."""
  sections = [_section(found, kind) for kind in findings_lib.TITLES]
  wanted = [at for s in sections for pair in s["pairs"] for at in pair["at"]]
  pictures = _pictures(found, wanted)
  for section in sections:
    for pair in section["pairs"]:
      at = pair.pop("at")
      pair["images"] = [
        image | {"jpeg": pictures[where]}
        for image, where in zip(_images(found, at), at, strict=True)
      ]
  environment = jinja2.Environment(
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  source = resources.files("facesiam_jax.evaluation") / "audit.html"
  template = environment.from_string(source.read_text(encoding="utf-8"))
  return template.render(
    sets=numbers(found, settings)["sets"],
    settings=settings,
    counts=[
      (findings_lib.TITLES[kind], *rest)
      for kind, *rest in findings_lib.counts(found)
    ],
    excluded=sum(
      grade == findings_lib.SURE
      for grade, _ in findings_lib.exclusions(found).values()
    ),
    sections=sections,
    files=(NUMBERS, TABLE),
  )


def _section(found: Findings, kind: str) -> dict[str, Any]:
  """Returns what the page says of a kind; `at` is where its images lie."""
  pairs = found.of(kind)
  return {
    "title": findings_lib.TITLES[kind],
    "total": len(pairs),
    "pairs": [
      {
        "grade": pair.grade,
        "figure": pair.figure,
        "where": " and ".join(dict.fromkeys(pair.where)),
        "wide": kind in ("people_by_name", "people_alike", "label_suspects"),
        "at": findings_lib.shown(found, pair),
      }
      for pair in pairs[:SHOWN]
    ],
  }


def _pictures(
  found: Findings, wanted: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], str]:
  """Returns (set, row) -> JPEG as base64."""
  pictures = {}
  wanted = set(wanted)
  for role, images in found.sets.items():
    rows = sorted(row for name, row in wanted if name == role)
    jpegs = reading.thumbnails(
      images.source, [int(images.places[row]) for row in rows]
    )
    for row in rows:
      jpeg = jpegs[int(images.places[row])]
      pictures[role, row] = base64.b64encode(jpeg).decode()
  return pictures
