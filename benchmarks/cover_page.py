"""The page of what benchmarks/cover.py measured: docs/intervals.md."""

import pathlib
from collections.abc import Mapping
from typing import Any

from facesiam_jax import metrics

# A nominal 95 % is held where the measured share lies between these.
LEAST, MOST = 0.93, 0.97


def _share(value: float | None) -> str:
  return "-" if value is None else f"{value:.1%}"


def cover_text(value: float) -> str:
  """Returns a cover as text, bold where it is not near 95 %."""
  text = f"{value:.1%}"
  return text if LEAST <= value <= MOST else f"**{text}**"


def _table(header: list[str], rows: list[list[str]]) -> str:
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _cases(result: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
  names = [name for name in result if name.split("-")[0] == kind]
  found = [case for name in names for case in result[name]["cases"]]
  order = lambda c: (c["people"], c.get("photos", ""), c["share"])
  return sorted(found, key=order)


def _rates(cases: list[dict[str, Any]], kind: str) -> str:
  header = ["people", "photos", "people's share", "true rate", "cover"]
  header += ["truth below", "truth above", "no error", "cover of these"]
  rows = []
  for case in cases:
    if case["kind"] != kind:
      continue
    rows.append(
      [
        str(case["people"]),
        case["photos"],
        f"{case['share']:g}",
        f"{case['rate']:.1%}",
        cover_text(case["cover"]),
        _share(case["truth_below"]),
        _share(case["truth_above"]),
        _share(case["without_error"]),
        _share(case["cover_without_error"]),
        "no interval" if case["people"] < 30 else _share(case["cautioned"]),
        _share(case["cover_naive"]),
      ]
    )
  return _table([*header, "said", "naive"], rows)


def _zero(cases: list[dict[str, Any]]) -> str:
  header = ["kind", "people", "photos", "people's share", "bound", "no error"]
  rows = [
    [
      case["kind"].upper(),
      str(case["people"]),
      case["photos"],
      f"{case['share']:g}",
      f"{case['rate']:.2g}",
      _share(case["without_error"]),
    ]
    for case in cases
  ]
  return _table(header, rows)


def _figures(cases: list[dict[str, Any]]) -> str:
  columns = sorted({(c["people"], c["share"]) for c in cases})
  cells = {(c["figure"], c["people"], c["share"]): c for c in cases}
  header = ["figure", *(f"{n} people, {s:g}" for n, s in columns)]
  repeats = {c["people"]: c["repeats"] for c in cases}
  rows = [["repetitions", *(str(repeats[n]) for n, _ in columns)]]
  for name in dict.fromkeys(case["figure"] for case in cases):
    found = [cells.get((name, *column)) for column in columns]
    rows.append(
      [name, *("-" if c is None else cover_text(c["cover"]) for c in found)]
    )
  return _table(header, rows)


def page(result: Mapping[str, Any]) -> str:
  """Returns the page of a result of `cover.py`, as Markdown."""
  rates = _cases(result, "rates")
  template = pathlib.Path(__file__).with_suffix(".md").read_text("utf-8")
  return template.format(
    fmr=_rates(rates, "fmr"),
    fnmr=_rates(rates, "fnmr"),
    zero=_zero(_cases(result, "zero")),
    figures=_figures(_cases(result, "bootstrap")),
    enough=metrics.ENOUGH_PEOPLE,
  )
