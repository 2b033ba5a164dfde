"""How often nominal 95 % intervals hold the truth, by simulation.

  python benchmarks/cover.py --out=benchmarks/results/cover.json \\
    --page=docs/intervals.md [--cases=rates-30-equal,...]

Scores are normal with variance 1. Of an impostor pair's, people cause a stated
share (the two alike), the rest is half of the two people together and half of
each pair of photos; a genuine pair's has the same parts of one person. The
thresholds are quantiles, so that the true rates are exact. Cases:

  rates-PEOPLE-PHOTOS: `metrics.error_rate_intervals`, 2,000 repetitions, at
    false match and false non-match rates of 1 % and 0.1 %;
  zero: the rule of three, at the rate of its own upper end;
  bootstrap-PEOPLE: `metrics.person_bootstrap` of EER, AUC and thresholds, and
    `metrics.platt_jackknife`, fewer repetitions.

Errors are drawn for each two people, binomial given what they share, which is
the same in distribution as a score for each pair of photos, and quicker; the
first repetition of each case is checked against the function that takes scores.
Cases add to the file that is there; `--cases=` writes the page of it alone.
"""

import json
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import outcome
from absl import app, flags
from scipy import special, stats

from facesiam_jax import files, metrics
from facesiam_jax.metrics import cells as cells_lib
from facesiam_jax.metrics import intervals, tally

_OUT = flags.DEFINE_string("out", None, "Result file; None writes none.")
_PAGE = flags.DEFINE_string("page", None, "Page of the tables, for docs/.")
_CASES = flags.DEFINE_list("cases", None, "Some of the cases; None means all.")
_REPEATS = flags.DEFINE_integer("repeats", 2000, "Repetitions of rates, zero.")

# Photos of one person after another, over and over.
PHOTOS = {"equal": (3,), "unequal": (2, 2, 2, 3, 3, 4, 4, 5, 7, 12)}
PEOPLE = (10, 30, 58, 100, 300)
SHARES = (0.125, 0.5)
RATES = (0.01, 0.001)
_DRAWN_AT_ONCE = 400_000
# Genuine scores lie so far above: an EER of 6.7 %.
_SHIFT = 3.0
_RESAMPLES = 200
_BOOTSTRAPS = {10: 300, 30: 300, 58: 200, 100: 50}
NAMES = (
  *(f"rates-{people}-{photos}" for people in PEOPLE for photos in PHOTOS),
  "zero",
  *(f"bootstrap-{people}" for people in _BOOTSTRAPS),
)


class _Design:
  """Who has how many photos, and what pairs that makes."""

  def __init__(self, people: int, photos: str, share: float):
    self.people, self.photos, self.share = people, photos, share
    self.numbers = np.resize(PHOTOS[photos], people)
    i, j = np.triu_indices(people, 1)
    self.ends = {"fmr": (i, j), "fnmr": (np.arange(people),) * 2}
    own = self.numbers * (self.numbers - 1) // 2
    self.pairs = {"fmr": self.numbers[i] * self.numbers[j], "fnmr": own}
    self.person = math.sqrt(share / 2)
    self.rest = math.sqrt((1 - share) / 2)

  def means(
    self, rng: np.random.Generator, repeats: int
  ) -> dict[str, np.ndarray]:
    """What each two people share of their scores, float [repeats, cells]."""
    people = rng.normal(size=(repeats, self.people)) * self.person
    i, j = self.ends["fmr"]
    both = {"fmr": people[:, i] + people[:, j], "fnmr": math.sqrt(2) * people}
    return {
      kind: mean + self.rest * rng.normal(size=mean.shape)
      for kind, mean in both.items()
    }

  def cells(
    self, rng: np.random.Generator, repeats: int, rates: Sequence[float]
  ) -> Iterator[tuple[str, float, cells_lib.Cells]]:
    """Yields what is seen of both kinds of pair at thresholds of true rates."""
    at_once = max(1, _DRAWN_AT_ONCE // self.pairs["fmr"].size)
    for first in range(0, repeats, at_once):
      means = self.means(rng, min(at_once, repeats - first))
      for kind, mean in means.items():
        for rate in rates:
          chance = special.ndtr((mean - stats.norm.ppf(1 - rate)) / self.rest)
          for wrong in rng.binomial(self.pairs[kind], chance):
            yield (
              kind,
              rate,
              cells_lib.Cells(wrong, self.pairs[kind], *self.ends[kind]),
            )


def _check(cells: cells_lib.Cells, found: metrics.RateInterval) -> None:
  """Compares with the function that takes a score of each pair."""
  errors = np.repeat(
    np.tile([1.0, 0.0], cells.wrong.size),
    np.stack([cells.wrong, cells.pairs - cells.wrong], axis=1).ravel(),
  )
  a, b = (np.repeat(x, cells.pairs) for x in (cells.first, cells.second))
  genuine = bool((a == b).all())
  # One pair of the other kind, which it wants to see.
  scores = np.append(1.0 - errors if genuine else errors, 0.5)
  other = (a[0], a[0] + 1) if genuine else (a[0], a[0])
  both = metrics.error_rate_intervals(
    scores, np.append(a, other[0]), np.append(b, other[1]), 0.5, min_people=2
  )
  same = both.fnmr if genuine else both.fmr
  if not np.allclose(
    [same.low, same.high, same.rate], [found.low, found.high, found.rate]
  ):
    raise SystemExit(f"counts and scores disagree: {found} and {same}.")


def _naive(found: metrics.RateInterval) -> tuple[float, float]:
  """Wilson's interval of pairs taken for independent."""
  if not 0 < found.errors < found.pairs:
    bound = metrics.rule_of_three(found.pairs)
    return (0.0, bound) if found.errors == 0 else (1 - bound, 1.0)
  variance = found.rate * (1 - found.rate) / found.pairs
  return intervals.rate_interval(found.rate, variance, 1e9)


def _rates(people: int, photos: str) -> Iterator[dict[str, Any]]:
  for share in SHARES:
    design = _Design(people, photos, share)
    rng = np.random.default_rng(people)
    rows: dict[tuple[str, float], list[tuple[float, ...]]] = {}
    for kind, rate, cells in design.cells(rng, _REPEATS.value, RATES):
      found = intervals.cells_interval(cells, min_people=2)
      low, high = found.low or 0.0, found.high or 0.0
      seen = rows.setdefault((kind, rate), [])
      if not seen:
        _check(cells, found)
      ends = _naive(found)
      seen.append(
        (
          *(low > rate, high < rate, found.errors == 0),
          *(found.caution is not None, ends[0] <= rate <= ends[1]),
          high - low,
        )
      )
    for (kind, rate), seen in rows.items():
      table = np.array(seen, float)
      held = (table[:, 0] + table[:, 1]) == 0
      none = table[:, 2] == 1
      yield {
        "people": people,
        "photos": photos,
        "share": share,
        "kind": kind,
        "rate": rate,
        "repeats": len(seen),
        "pairs": int(design.pairs[kind].sum()),
        "cover": float(held.mean()),
        "truth_below": float(table[:, 0].mean()),
        "truth_above": float(table[:, 1].mean()),
        "without_error": float(none.mean()),
        "cover_without_error": float(held[none].mean()) if none.any() else None,
        "cautioned": float(table[:, 3].mean()),
        "cover_naive": float(table[:, 4].mean()),
        "median_width": float(np.median(table[:, 5])),
      }


def _zero() -> Iterator[dict[str, Any]]:
  """How often there is no error at a rate as high as the rule of three says."""
  for people in PEOPLE:
    for photos in PHOTOS:
      for share in SHARES:
        design = _Design(people, photos, share)
        for kind in ("fmr", "fnmr"):
          rate = metrics.rule_of_three(design.pairs[kind].size)
          # Of both kinds; the other one's rate is of no use.
          rng = np.random.default_rng(people)
          repeats = min(_REPEATS.value, 20_000_000 // design.pairs["fmr"].size)
          none = [
            not cells.wrong.any()
            for one, _, cells in design.cells(rng, repeats, [rate])
            if one == kind
          ]
          yield {
            "people": people,
            "photos": photos,
            "share": share,
            "kind": kind,
            "rate": rate,
            "repeats": repeats,
            "without_error": float(np.mean(none)),
          }


def _statistics(counts: tally.Tally) -> dict[str, float]:
  rates = tally.error_rates_of(counts, _SHIFT / 2)
  eer = tally.eer_of(counts)
  return {
    "EER": eer.rocch,
    "AUC": tally.auc_of(counts),
    "threshold at the EER": eer.threshold,
    "threshold at FMR 1 %": tally.tar_at_far_of(counts, 0.01).threshold,
    "FMR at a threshold": rates.fmr,
    "FNMR at a threshold": rates.fnmr,
  }


_TRUE = {
  "EER": stats.norm.sf(_SHIFT / 2),
  "AUC": stats.norm.cdf(_SHIFT / math.sqrt(2)),
  "threshold at the EER": _SHIFT / 2,
  "threshold at FMR 1 %": stats.norm.isf(0.01),
  "FMR at a threshold": stats.norm.sf(_SHIFT / 2),
  "FNMR at a threshold": stats.norm.sf(_SHIFT / 2),
}


def _scores(
  design: _Design, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Draws a score of each pair of photos, and the people of it."""
  parts = []
  for kind, (mean,) in design.means(rng, 1).items():
    cell = np.repeat(np.arange(mean.size), design.pairs[kind])
    noise = design.rest * rng.normal(size=cell.size)
    shift = _SHIFT if kind == "fnmr" else 0.0
    a, b = design.ends[kind]
    parts.append((mean[cell] + noise + shift, a[cell], b[cell]))
  scores, a, b = (np.concatenate(part) for part in zip(*parts, strict=True))
  return scores, a, b


def _bootstrap(people: int) -> Iterator[dict[str, Any]]:
  for share in SHARES:
    design = _Design(people, "equal", share)
    rng = np.random.default_rng(people)
    held: dict[str, list[bool]] = {}
    for _ in range(_BOOTSTRAPS[people]):
      scores, a, b = _scores(design, rng)
      ends = metrics.person_bootstrap(
        _statistics, scores, a, b, resamples=_RESAMPLES, min_people=2
      ).intervals
      for name, (low, high) in (ends or {}).items():
        held.setdefault(name, []).append(low <= _TRUE[name] <= high)
      # The true log likelihood ratio of these normal scores.
      at = np.array([0.0, _SHIFT / 2, _SHIFT])
      spread = metrics.platt_jackknife(scores, a, b, min_people=2)
      low, high = spread.ends(at)
      truth = _SHIFT * at - _SHIFT**2 / 2
      names = ("an impostor's mean", "even odds", "a genuine mean")
      for name, inside in zip(
        names, (low <= truth) & (truth <= high), strict=True
      ):
        held.setdefault(f"probability at {name}", []).append(bool(inside))
    for name, seen in held.items():
      yield {
        "people": people,
        "share": share,
        "figure": name,
        "repeats": len(seen),
        "resamples": None if "probability" in name else _RESAMPLES,
        "cover": float(np.mean(seen)),
      }


def _run(name: str) -> dict[str, Any]:
  kind, _, rest = name.partition("-")
  cases: Callable[[], Iterator[dict[str, Any]]]
  if kind == "rates":
    people, _, photos = rest.partition("-")
    cases = lambda: _rates(int(people), photos)
  elif kind == "bootstrap":
    cases = lambda: _bootstrap(int(rest))
  else:
    cases = _zero
  start = time.perf_counter()
  found = list(cases())
  return {
    **outcome.environment(["numpy", "scipy"]),
    "seconds": round(time.perf_counter() - start, 1),
    "cases": found,
  }


def main(argv: list[str]) -> None:
  """Runs the cases, adds them to the file and writes the page."""
  del argv
  names = NAMES if _CASES.value is None else tuple(_CASES.value)
  unknown = sorted({*names} - {*NAMES})
  if unknown:
    raise SystemExit(f"--cases: {', '.join(unknown)} is none of {NAMES}.")
  result: dict[str, Any] = {}
  if _OUT.value and pathlib.Path(_OUT.value).is_file():
    result = json.loads(pathlib.Path(_OUT.value).read_text())
  for name in names:
    result[name] = _run(name)
    print(name, result[name]["seconds"], "s", flush=True)
    outcome.write(_OUT.value, result)
  if _PAGE.value:
    import cover_page

    files.write(_PAGE.value, cover_page.page(result).encode())


if __name__ == "__main__":
  app.run(main)
