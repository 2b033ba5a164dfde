"""What the tool says of its intervals is what was simulated."""

import json
import pathlib

import pytest

from benchmarks import cover_page
from facesiam_jax import metrics

_ROOT = pathlib.Path(__file__).parents[1]
_RESULT = json.loads(
  (_ROOT / "benchmarks" / "results" / "cover.json").read_text("utf-8")
)
_CASES = {
  f"{kind}-{n}": case
  for kind in ("rates", "zero", "bootstrap")
  for n, case in enumerate(
    case
    for name, part in _RESULT.items()
    if name.split("-")[0] == kind
    for case in part["cases"]
  )
}
_RATES = {name: c for name, c in _CASES.items() if name.startswith("rates")}
_LEAST_PEOPLE = metrics.MIN_PEOPLE


def test_all_that_was_asked_was_simulated():
  wanted = {
    (people, photos, rate, kind)
    for people in (10, 30, 58, 300)
    for photos in ("equal", "unequal")
    for rate in (0.01, 0.001)
    for kind in ("fmr", "fnmr")
  }
  names = ("people", "photos", "rate", "kind")
  assert wanted <= {tuple(c[name] for name in names) for c in _RATES.values()}
  assert all(case["repeats"] >= 2000 for case in _RATES.values())


@pytest.mark.parametrize("name", _RATES)
def test_no_interval_of_a_rate_is_off_without_a_word(name):
  case = _RATES[name]
  if case["people"] < _LEAST_PEOPLE:
    return
  if case["cautioned"] < 0.5:
    # A share of 2,000 is known to half a point, one standard error.
    assert cover_page.LEAST - 0.01 < case["cover"] < cover_page.MOST + 0.01
  # "in up to 15 of 100", and false non-matches "wider than need be".
  assert case["cover"] > (0.845 if case["kind"] == "fmr" else 0.93)


@pytest.mark.parametrize(
  "name", [name for name in _CASES if name.startswith("zero")]
)
def test_the_rule_of_three_holds(name):
  assert _CASES[name]["without_error"] <= 0.05


def test_the_page_is_of_this_result():
  page = (_ROOT / "docs" / "intervals.md").read_text("utf-8")
  assert page == cover_page.page(_RESULT)


def test_a_cover_beyond_93_to_97_is_bold():
  shown = [cover_page.cover_text(x) for x in (0.92, 0.93, 0.97, 0.98)]
  assert shown == ["**92.0%**", "93.0%", "97.0%", "**98.0%**"]
