"""The page of what benchmarks/compare.py measured: docs/side_by_side.md."""

import pathlib
from collections.abc import Mapping
from typing import Any

import compare_losses
import compare_table

_CLEAR = 0.05


def _differences(found: Mapping[str, Any], measure: str) -> str:
  """Row less column, in points; bold where clear after Holm's correction."""
  names = list(compare_losses.ROWS)
  pairs = found["differences"][measure]
  titles = [compare_losses.ROWS[name].title for name in names]

  def cell(row: str, column: str) -> str:
    sign, one = 1, pairs.get(f"{row} - {column}")
    if one is None:
      sign, one = -1, pairs[f"{column} - {row}"]
    text = f"{100 * sign * one['value']:+.1f}"
    return f"**{text}**" if one["p_holm"] < _CLEAR else text

  rows = [
    [titles[n], *(cell(name, one) for one in names[:n])]
    for n, name in enumerate(names)
    if n
  ]
  for row in rows:
    row += [""] * (len(names) - len(row))
  return compare_table.lines(["points", *titles[:-1]], rows)


def _minutes(found: Mapping[str, Any]) -> str:
  seconds = sum(
    part["seconds_of_this_call"]
    for of in found.values()
    for part in of.values()
  )
  return f"{seconds / 60:.0f}"


def page(result: Mapping[str, Any]) -> str:
  """Returns the page of a result file, as Markdown."""
  celeba, olivetti = result["celeba"], result["olivetti"]["losses"]
  template = pathlib.Path(__file__).with_suffix(".md").read_text("utf-8")
  return template.format(
    minutes=_minutes(result),
    celeba=compare_table.losses(celeba["losses"], celeba["speed"]),
    celeba_eer=_differences(celeba["losses"], "eer"),
    celeba_rank_1=_differences(celeba["losses"], "rank_1"),
    celeba_gap=compare_table.seen_people(celeba["losses"]),
    olivetti=compare_table.losses(olivetti, None),
    olivetti_eer=_differences(olivetti, "eer"),
    olivetti_gap=compare_table.seen_people(olivetti),
    **{part: make(celeba[part]) for part, make in compare_table.OTHERS.items()},
  )
