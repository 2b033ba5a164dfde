"""Error rates by group of people, from a table of who is in which group."""

import csv
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax import errors
from facesiam_jax.evaluation import protocols
from facesiam_jax.metrics import fairness, intervals, verification

_KINDS = ("person", "image")
_NAMED = 3


def read(path: str | os.PathLike[str]) -> tuple[str, dict[str, str]]:
  """Reads a table with the columns person and group, or image and group.

  Args:
    path: a CSV file with a header.

  Returns:
    ("person" or "image", name -> group).

  Raises:
    errors.UserError: if it is missing, lacks a column, or puts somebody into
      two groups or none.
  """
  path = pathlib.Path(path)
  try:
    with path.open(newline="", encoding="utf-8-sig") as file:
      rows = csv.DictReader(file)
      header = [name.strip() for name in rows.fieldnames or ()]
      rows.fieldnames = header
      kind = next((k for k in _KINDS if k in header), "")
      if not kind or "group" not in header:
        raise errors.UserError(
          f"--groups={path} needs a header with the columns person (or image) "
          f"and group, it has {header}."
        )
      return kind, _table(path, kind, list(rows))
  except (UnicodeDecodeError, csv.Error) as error:
    raise errors.UserError(
      f"--groups={path} is no CSV text in UTF-8: {error}."
    ) from error
  except OSError as error:
    raise errors.UserError(
      f"--groups={path} cannot be read: {error.strerror}."
    ) from error


def _table(
  path: pathlib.Path, kind: str, rows: Sequence[Mapping[str, str | None]]
) -> dict[str, str]:
  table: dict[str, str] = {}
  for row in rows:
    name, group = ((row[key] or "").strip() for key in (kind, "group"))
    if not name or not group:
      raise errors.UserError(
        f"--groups={path} has a line without {kind} or group: {dict(row)}."
      )
    if table.setdefault(name, group) != group:
      raise errors.UserError(
        f"--groups={path} puts {name} into two groups, {table[name]} and "
        f"{group}: leave one."
      )
  return table


def of_people(
  path: str | os.PathLike[str],
  people: Sequence[str],
  images: Mapping[str, str] | None = None,
) -> dict[str, str]:
  """Returns the group of each person.

  Args:
    path: as of `read`; who is in it beside these people does not matter.
    people: those who are wanted.
    images: image -> person; None where images have no names.

  Raises:
    errors.UserError: as `read`; or if somebody is in no group, or in two by
      their images.
  """
  kind, table = read(path)
  if kind == "image":
    if images is None:
      raise errors.UserError(
        f"--groups={path} names images, and those of a data set have no "
        "names: give the columns person and group."
      )
    by_person: dict[str, str] = {}
    for image, group in table.items():
      person = images.get(image)
      if person and by_person.setdefault(person, group) != group:
        raise errors.UserError(
          f"--groups={path} puts images of {person} into two groups, "
          f"{by_person[person]} and {group}; a person is in one."
        )
    table = by_person
  missing = sorted(set(people) - table.keys())
  if missing:
    named = ", ".join(missing[:_NAMED])
    more = f" and {len(missing) - _NAMED} more" if missing[_NAMED:] else ""
    raise errors.UserError(
      f"--groups={path} gives no group for {named}{more}: add them."
    )
  return {person: table[person] for person in people}


def group_report(
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  groups: ArrayLike,
  threshold: float | None,
) -> dict[str, Any]:
  """Measures the error rates of each group at one threshold for all.

  Args:
    similarity: float [N, N], bigger is closer.
    identity_ids: person of each image, int [N].
    groups: group of each image's person, strings [N].
    threshold: decision threshold; None takes that of the equal error rate.

  Returns:
    A dict that JSON can hold: threshold; threshold_of, "bundle" or "equal error
    rate"; groups, a list of dicts: group, people, images, genuine, impostor
    (pairs within the group), fnmr, fmr_within, fmr_across, and the ends
    fnmr_interval and fmr_within_interval, null below 30 people, with
    fnmr_caution and fmr_within_caution, see `metrics.RateInterval`; and over
    all groups fmr_ratio, fnmr_ratio (greatest over least), fairness_discrepancy
    and garbe. What cannot be measured is null.

  Raises:
    ValueError: as `metrics.group_error_rates`.

  Degenerate input: a single group has no measures over groups.
  """
  ids, names = np.asarray(identity_ids), np.asarray(groups)
  pairs = protocols.all_pairs(ids)
  scores = np.asarray(similarity)[pairs.i, pairs.j]
  known = threshold is not None
  at = threshold
  if at is None:
    at = verification.threshold_at_eer(scores, pairs.same)
  rates = fairness.group_error_rates(
    scores, pairs.same, names[pairs.i], names[pairs.j], at
  )
  rows = []
  for n, group in enumerate(rates.groups):
    inside = (names[pairs.i] == group) & (names[pairs.j] == group)
    a, b = ids[pairs.i][inside], ids[pairs.j][inside]
    ends = _ends(scores[inside], a, b, at)
    own = ids[names == group]
    rows.append(
      {
        "group": str(group),
        "people": int(np.unique(own).size),
        "images": int(own.size),
        "genuine": int(rates.genuine[n]),
        "impostor": int(rates.impostor[n, n]),
        "fnmr": _number(rates.fnmr[n]),
        "fmr_within": _number(rates.fmr_within[n]),
        "fmr_across": _number(rates.fmr_across[n]),
        **ends,
      }
    )
  return {
    "threshold": float(at),
    "threshold_of": "bundle" if known else "equal error rate",
    "groups": rows,
    **_over_all(rates.fmr_within, rates.fnmr),
  }


def _ends(
  scores: np.ndarray, a: np.ndarray, b: np.ndarray, threshold: float
) -> dict[str, list[float] | str | None]:
  """Intervals of a group's rates, where it has both kinds of pair."""
  found: dict[str, list[float] | str | None] = {
    f"{name}_{what}": None
    for name in ("fmr_within", "fnmr")
    for what in ("interval", "caution")
  }
  if (a == b).any() and (a != b).any():
    both = intervals.error_rate_intervals(scores, a, b, threshold)
    for name, rate in (("fmr_within", both.fmr), ("fnmr", both.fnmr)):
      if rate.low is not None and rate.high is not None:
        found[f"{name}_interval"] = [rate.low, rate.high]
        found[f"{name}_caution"] = rate.caution
  return found


def _over_all(fmr: np.ndarray, fnmr: np.ndarray) -> dict[str, float | None]:
  """Measures of how far the groups differ, of those with both rates."""
  names = ("fmr_ratio", "fnmr_ratio", "fairness_discrepancy", "garbe")
  some = ~(np.isnan(fmr) | np.isnan(fnmr))
  if some.sum() < 2:
    return dict.fromkeys(names)
  f, m = fmr[some], fnmr[some]
  values = (
    fairness.max_ratio(f),
    fairness.max_ratio(m),
    fairness.fairness_discrepancy_rate(f, m),
    fairness.garbe(f, m),
  )
  return dict(zip(names, map(_number, values), strict=True))


def _number(value: float) -> float | None:
  return float(value) if math.isfinite(value) else None
