"""`facesiam report`: lay runs of the same images side by side."""

import sys

from absl import flags

from facesiam_jax.cli import common

HELP = "Lay measured runs side by side, with tests of their differences."
USAGE = "facesiam report --compare RUN1 RUN2 [...] --out=DIR [flags]"


def define_flags(flag_values: flags.FlagValues) -> None:
  """Defines the verb's flags."""
  for name, text in (
    ("compare", "Compare the runs that are named: workdirs, or folders that "
     "`facesiam evaluate` wrote; as NAME=DIR to name them."),
    ("baselines", "Compare also with what the first run was measured beside, "
     "such as raw pixels."),
    ("common", "Compare on the images that all runs have; without it runs of "
     "other images are refused."),
  ):  # fmt: skip
    flags.DEFINE_bool(name, False, text, flag_values=flag_values)
  flags.DEFINE_string(
    "out",
    None,
    "Folder for compare.html, compare.json and the pictures. Required.",
    required=True,
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    "resamples",
    1000,
    "Draws of people that intervals and tests come from.",
    lower_bound=100,
    flag_values=flag_values,
  )


def run(flag_values: flags.FlagValues, args: list[str]) -> int:
  """Compares, prints what differs and writes the page."""
  if not flag_values.compare:
    raise common.UsageError(
      "say what to report: --compare RUN1 RUN2; one run's report is written "
      "by `facesiam evaluate`."
    )
  if not args:
    raise common.UsageError("--compare needs runs to compare: RUN1 RUN2.")
  from facesiam_jax.evaluation import comparison, comparison_page
  from facesiam_jax.training import provenance

  runs = comparison.open_runs(args, baselines=flag_values.baselines)
  if sys.stderr.isatty():
    print(f"drawing people {flag_values.resamples:,} times", file=sys.stderr)
  found = comparison.compare(
    runs, common=flag_values.common, resamples=flag_values.resamples
  )
  page = comparison_page.write(flag_values.out, found, provenance.facts())
  _print(comparison.as_json(found, {}))
  print(f"report  {page}")
  return 0


def _print(facts: dict) -> None:
  from facesiam_jax.evaluation import comparison

  rows = []
  for metric, label, _ in comparison.METRICS:
    cells = [label]
    for one in facts["runs"]:
      value = one["values"].get(metric)
      ends = (one["interval"] or {}).get(metric)
      text = "-" if value is None else f"{value:.2%}"
      cells.append(text + (" ({:.1%} to {:.1%})".format(*ends) if ends else ""))
    if set(cells[1:]) != {"-"}:
      rows.append(cells)
  print(common.table(["", *(one["name"] for one in facts["runs"])], rows))
  print(
    f"on {facts['num_people']} people, {facts['num_genuine']} genuine and "
    f"{facts['num_impostor']} impostor pairs, the same for all"
  )
  for pair in facts["differences"]:
    print(f"{pair['a']} minus {pair['b']}, in percentage points:")
    for text in pair["verdicts"]:
      print(f"  {text}")
  if facts["interval_reason"]:
    print(f"no test is given: {facts['interval_reason']}")
