"""The README's tables of the side-by-side benchmark, in Markdown."""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import compare_losses

_COLUMNS = {
  "triplet_accuracy": "triplet accuracy",
  "auc": "AUC",
  "eer": "EER",
  "tar_at_far_0.01": "TAR at FAR 1 %",
  "one_shot": "one-shot, 10-way",
  "rank_1": "rank-1",
  "fnir_at_fpir_0.1": "FNIR at FPIR 10 %",
}
_CLEAR = 0.05
# Of them the README has the interval; the result file has all.
_WITH_INTERVAL = ("triplet_accuracy", "eer", "rank_1")


def _percent(one: Mapping[str, float], *, interval: bool = False) -> str:
  text = f"{100 * one['value']:.1f}"
  if interval:
    text += f" ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
  return text


def lines(titles: list[str], rows: list[list[str]]) -> str:
  """Returns a table in Markdown."""
  table = [titles, ["---"] * len(titles), *rows]
  return "\n".join("| " + " | ".join(row) + " |" for row in table)


def losses(found: Mapping[str, Any], speed: Mapping[str, Any] | None) -> str:
  """Returns Table A of a data set.

  Args:
    found: what `compare_losses.run` returned.
    speed: what `compare_speed.run` returned; None leaves the column out.
  """
  some = next(iter(found["rows"].values()))["own"]
  columns = {key: title for key, title in _COLUMNS.items() if key in some}
  titles = ["%", *columns.values(), "C_llr, bits", "EER by cosine"]
  titles += ["images/s"] if speed else []
  rows = []
  for name, about in compare_losses.ROWS.items():
    row = found["rows"][name]
    cells = [
      _percent(row["own"][key], interval=key in _WITH_INTERVAL)
      for key in columns
    ]
    cells.append(f"{row['own']['cllr']['value']:.2f}")
    cells.append(_percent(row.get("cosine", row["own"])["eer"]))
    if speed:
      rate = speed["images_per_second"][about.network]["median"]
      cells.append(f"{rate:,.0f}")
    rows.append([about.title, *cells])
  return lines(titles, rows)


def clear_differences(found: Mapping[str, Any], measure: str) -> str:
  """Returns which differences of a measure exceed chance, after Holm."""
  pairs = found["differences"][measure]
  clear = {n: d for n, d in pairs.items() if d["p_holm"] < _CLEAR}
  said = [f"{measure}: {len(clear)} of {len(pairs)} differences are clear"]
  for name, one in sorted(clear.items(), key=lambda item: item[1]["value"]):
    said.append(f"  {name}: {_percent(one, interval=True)}")
  return "\n".join(said)


def seen_people(found: Mapping[str, Any]) -> str:
  """Returns training people by other photos, and the gap to new people."""
  titles = {
    "eer_cosine_training_photos": "EER, training photos",
    "eer_cosine_seen_people_other_photos": "EER, their other photos",
    "new": "EER, new people",
    "seen_rank_1_by_templates": "rank-1 of training people, templates",
    "seen_rank_1_by_argmax": "the same, argmax",
  }
  rows = []
  for name, about in compare_losses.ROWS.items():
    row = found["rows"][name]
    new = row.get("cosine", row["own"])["eer"]["value"]
    rates = {"new": new, **row["seen_people_and_gap"]}
    cells = [f"{100 * rates[k]:.1f}" if k in rates else "-" for k in titles]
    rows.append([about.title, *cells])
  return lines(["%, by cosine", *titles.values()], rows)


def add_people(found: Mapping[str, Any]) -> str:
  """Returns what a new person costs, and who is recognised then."""
  photos = list(next(iter(found["ways"].values())))
  titles = ["way", *(f"{n} photo{'s' * (n != '1')}" for n in photos)]
  rows = [
    [
      way,
      *(
        f"{100 * one['rank_1_new']:.0f} / {100 * one['rank_1_old']:.0f} / "
        f"{one['seconds']:.2g} s"
        for one in of.values()
      ),
    ]
    for way, of in found["ways"].items()
  ]
  return lines(titles, rows)


def curve(found: Mapping[str, Any]) -> str:
  """Returns the learning curves' equal error rates."""
  cells = found["cells"]
  titles = ["EER, %", *cells]
  rows = [
    [
      cell,
      *(_percent(cells[name][cell]["eer"], interval=True) for name in cells),
    ]
    for cell in sorted(next(iter(cells.values())), key=_by_numbers)
  ]
  return lines(titles, rows)


def _by_score(scores: Mapping[str, Mapping[str, Any]], corner: str) -> str:
  """EER of a table of scores, one score a row."""
  columns = sorted(next(iter(scores.values())), key=_by_numbers)
  rows = [
    [name, *(_percent(of[one]["eer"], interval=True) for one in columns)]
    for name, of in scores.items()
  ]
  return lines([corner, *columns], rows)


def _by_numbers(name: str) -> tuple[list[int], str]:
  """Sorts names by the numbers in them, as the result file does not."""
  return [int(number) for number in re.findall(r"\d+", name)], name


def sizes(found: Mapping[str, Any]) -> str:
  """Returns lengths of the embedding against what compares them."""
  return _by_score(found["scores"], "EER, %")


def frozen(found: Mapping[str, Any]) -> str:
  """Returns heads fitted alone, by network."""
  return _by_score(found["networks"], "EER, %")


OTHERS = {
  "add_people": add_people, "curve": curve, "sizes": sizes, "frozen": frozen
}  # fmt: skip


def text(path: str) -> str:
  """Returns every table of a result file, in Markdown."""
  result = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
  parts = []
  for data, found in sorted(result.items()):
    if "losses" in found:
      table = found["losses"]
      parts += [f"## {data}", losses(table, found.get("speed"))]
      parts += [clear_differences(table, m) for m in table["differences"]]
      parts.append(seen_people(table))
    for part, make in OTHERS.items():
      if part in found:
        parts += [f"### {part}", make(found[part])]
  return "\n\n".join(parts)
