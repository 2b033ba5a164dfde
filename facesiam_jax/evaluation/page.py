"""The page of a report: numbers and pictures as one HTML text."""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jinja2

from facesiam_jax.evaluation import figures

# Metric, its name on the page, and what it means in a sentence.
_MEANINGS = (
  (
    "eer",
    "Equal error rate (EER)",
    "Error rate at the threshold where accepting strangers and rejecting the "
    "right person are equally frequent, on the convex hull of the ROC curve.",
  ),
  (
    "eer_raw",
    "EER without the hull",
    "The same, read off the ROC curve itself.",
  ),
  (
    "auc",
    "Area under the ROC curve",
    "Chance that a pair of the same person scores above a pair of different "
    "people; 50% is guessing.",
  ),
  (
    "tar_at_far_0.01",
    "TAR at FAR 1%",
    "Share of same-person pairs accepted when at most 1 in 100 pairs of "
    "different people is.",
  ),
  (
    "tar_at_far_0.1",
    "TAR at FAR 10%",
    "The same when at most 1 in 10 pairs of different people is accepted.",
  ),
  (
    "one_shot_accuracy",
    "One-shot accuracy",
    "Share of images whose own person scores highest when each person is known "
    "by one random image.",
  ),
  (
    "triplet_accuracy",
    "Triplet accuracy",
    "Share of triplets in which another image of the same person scores above "
    "one of somebody else; 50% is guessing.",
  ),
  (
    "fmr",
    "False match rate (FMR)",
    "Share of pairs of different people accepted at the decision threshold.",
  ),
  (
    "fnmr",
    "False non-match rate (FNMR)",
    "Share of pairs of the same person rejected at the decision threshold.",
  ),
  (
    "accuracy",
    "Accuracy",
    "Share of right decisions over all pairs; most pairs are of different "
    "people, so always saying no scores high here too.",
  ),
  (
    "balanced_accuracy",
    "Balanced accuracy",
    "The same with both kinds of pair weighted equally; 50% is guessing.",
  ),
)
_HEADLINES = ("eer", "one_shot_accuracy", "tar_at_far_0.01", "fmr", "fnmr")
_WITH_FAILURES = ("fmr", "fnmr", *_HEADLINES[:3], "tar_at_far_0.1")
_COMPARED = ("eer", "auc", "tar_at_far_0.01", "one_shot_accuracy")


class Picture(NamedTuple):
  """A picture of the page.

  Attributes:
    name: of the file, without .png.
    title: heading on the page.
    caption: one or two sentences under it.
    png: the bytes of the file.
  """

  name: str
  title: str
  caption: str
  png: bytes


def render(
  metrics: Mapping[str, Any],
  pictures: Sequence[Picture],
  title: str,
  name: str,
) -> str:
  """Returns the page of a report: HTML with its pictures inlined.

  Args:
    metrics: what metrics.json holds: a `verification_report` with
      `fingerprint` and `settings`, and perhaps `spread` and `baselines`.
    pictures: to show, in this order.
    title: of the page.
    name: of the system reported on, in the tables.

  Returns:
    The HTML.
  """
  rows = [
    _row(metrics, *meaning)
    for meaning in _MEANINGS
    if metrics.get(meaning[0]) is not None
  ]
  by_key = {row["key"]: row for row in rows}
  return template("template.html").render(
    title=title,
    metrics=metrics,
    threshold=_threshold_text(metrics),
    headlines=[by_key[key] for key in _HEADLINES if key in by_key],
    rows=rows,
    comparison=_comparison(metrics, name),
    acquisition=_acquisition(metrics),
    groups=_groups(metrics),
    quality=_quality(metrics),
    settings=flat(metrics["settings"]),
    made=flat(metrics.get("made", {})),
    options=flat(metrics.get("options", {})),
    leak=leak_mark(metrics),
    unchecked=metrics.get("leak", {}).get("reason"),
    pictures=inlined(pictures),
  )


def template(name: str) -> jinja2.Template:
  """Returns a page's template, which escapes what is put into it."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("facesiam_jax", "evaluation"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  return environment.get_template(name)


def inlined(pictures: Sequence[Picture]) -> list[dict[str, str]]:
  """Returns pictures as a template takes them."""
  return [
    {
      "name": picture.name,
      "title": picture.title,
      "caption": picture.caption,
      "data": base64.b64encode(picture.png).decode(),
    }
    for picture in pictures
  ]


def leak_mark(metrics: Mapping[str, Any]) -> str:
  """Returns what is stamped on figures of people who were trained on, or ""."""
  people = metrics.get("leak", {}).get("people", ())
  return f"{len(people)} of these people were trained on" if people else ""


def _threshold_text(metrics: Mapping[str, Any]) -> str | None:
  threshold = metrics["threshold_logit"]
  return None if threshold is None else figures.number(threshold)


def _row(
  metrics: Mapping[str, Any], key: str, label: str, meaning: str
) -> dict[str, Any]:
  """One line of the summary table."""
  interval = (metrics["interval"] or {}).get(key)
  spread = metrics.get("spread", {}).get(key)
  return {
    "key": key,
    "label": label,
    "meaning": meaning,
    "value": percent(metrics[key]),
    "count": _count_text(metrics["counts"].get(key, {})),
    "interval": None if interval is None else between(*interval),
    "spread": None if spread is None else _spread_text(spread),
  }


def percent(share: float) -> str:
  """A share as a percentage, with enough digits to tell a rare error from 0."""
  rare = min(share, 1 - share)
  digits = 1 if rare == 0 or rare >= 0.01 else 2 if rare >= 0.001 else 3
  return f"{share:.{digits}%}"


def between(low: float, high: float) -> str:
  return f"{percent(low)} to {percent(high)}"


def _spread_text(spread: Mapping[str, float]) -> str:
  text = percent(spread["mean"])
  if spread["sd"] is not None:
    text += f" \N{PLUS-MINUS SIGN} {spread['sd']:.1%}"
  return f"{text} ({between(spread['min'], spread['max'])})"


def _count_text(counts: Mapping[str, int]) -> str:
  if "count" in counts:
    return f"{counts['count']:,} of {counts['of']:,}"
  if "genuine" in counts:
    return f"{counts['genuine']:,} + {counts['impostor']:,} pairs"
  return ""


def _comparison(metrics: Mapping[str, Any], name: str) -> dict[str, Any] | None:
  """The table of the network beside its baselines."""
  if "baselines" not in metrics:
    return None
  labels = {key: label for key, label, _ in _MEANINGS}
  systems = {name: metrics, **metrics["baselines"]}
  return {
    "labels": [labels[key] for key in _COMPARED],
    "rows": [
      (system, [percent(result[key]) for key in _COMPARED])
      for system, result in systems.items()
    ],
  }


def _acquisition(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
  """Photos without a usable face, and the metrics with and without them."""
  acquired = metrics.get("acquisition")
  if acquired is None:
    return None
  labels = {key: label for key, label, _ in _MEANINGS}
  every = acquired["with_failures"]
  rows = [
    (labels[key], percent(metrics[key]), percent(every[key]))
    for key in _WITH_FAILURES
    if every and metrics[key] is not None
  ]
  return {**acquired, "rows": rows}


def _groups(metrics: Mapping[str, Any]) -> list[Any] | None:
  """Of each group its name, its size, and its rates with their intervals."""
  if "groups" not in metrics:
    return None
  rows = []
  for row in metrics["groups"]["groups"]:
    cells = [
      (
        "\N{EN DASH}" if row[rate] is None else percent(row[rate]),
        between(*ends) if (ends := row.get(f"{rate}_interval")) else "",
      )
      for rate in ("fnmr", "fmr_within", "fmr_across")
    ]
    rows.append((row["group"], f"{row['people']:,}, {row['images']:,}", cells))
  return rows


def _quality(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
  return [
    (name, f"{value:.2f}") for name, value in metrics.get("quality", {}).items()
  ]


def flat(settings: Mapping[str, Any], prefix: str = "") -> list[Any]:
  """Returns nested settings as (dotted name, text) lines."""
  lines: list[Any] = []
  for key, value in settings.items():
    if isinstance(value, dict) and value:
      lines += flat(value, f"{prefix}{key}.")
    else:
      text = value if isinstance(value, str) else json.dumps(value)
      lines.append((f"{prefix}{key}", text))
  return lines
