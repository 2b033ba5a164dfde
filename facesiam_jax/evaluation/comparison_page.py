"""Writes runs side by side to disk: numbers, pictures and one HTML page."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from facesiam_jax.evaluation import comparison as comparison_lib
from facesiam_jax.evaluation import figures, page, protocols, report

PAGE = "compare.html"
NUMBERS = "compare.json"


def write(
  out_dir: str | os.PathLike[str],
  comparison: comparison_lib.Comparison,
  made: Mapping[str, Any],
  *,
  title: str = "Runs side by side",
) -> pathlib.Path:
  """Writes compare.json, roc.png, det.png and a self-contained compare.html.

  Args:
    out_dir: directory, made if absent.
    comparison: from `comparison.compare`.
    made: the command, commit and versions, from `training.provenance`.
    title: of the page.

  Returns:
    The path of compare.html.

  Raises:
    errors.UserError: if the directory cannot be written; what was there stays.
  """
  facts = comparison_lib.as_json(comparison, made)
  pictures = _pictures(comparison)
  html = page.template("compare.html").render(
    title=title,
    facts=facts,
    rows=_rows(facts),
    pictures=page.inlined(pictures),
    made=page.flat(made),
  )
  files = {f"{picture.name}.png": picture.png for picture in pictures}
  text = json.dumps(facts, indent=1, sort_keys=True, allow_nan=False)
  files[NUMBERS] = (text + "\n").encode()
  files[PAGE] = html.encode()
  report.write_all(pathlib.Path(out_dir), files)
  return pathlib.Path(out_dir) / PAGE


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
  """Of each metric its label, and each run's value and interval in print."""
  rows = []
  for metric, label, _ in comparison_lib.METRICS:
    cells = []
    for run in facts["runs"]:
      value, ends = run["values"].get(metric), (run["interval"] or {})
      cells.append(
        (
          "\N{EN DASH}" if value is None else page.percent(value),
          page.between(*ends[metric]) if metric in ends else "",
        )
      )
    if any(metric in run["values"] for run in facts["runs"]):
      rows.append((label, cells))
  return rows


def _pictures(comparison: comparison_lib.Comparison) -> list[page.Picture]:
  pairs = protocols.all_pairs(comparison.runs[0].identity_ids)
  systems: dict[str, figures.Scored] = {
    name: (run.similarity[pairs.i, pairs.j], pairs.same)
    for name, run in zip(comparison.names, comparison.runs, strict=True)
  }
  return [
    page.Picture(
      "roc",
      "ROC curves",
      "Every trade-off between accepting the right person (up) and accepting "
      "strangers (right), on the same pairs.",
      figures.png_bytes(figures.roc_figure(systems)),
    ),
    page.Picture(
      "det",
      "DET curves",
      "The two error rates against each other on normal-deviate axes. Lower "
      "left is better.",
      figures.png_bytes(figures.det_figure(systems)),
    ),
  ]
