"""Prints docs/peers.md: every case and edge with the number measured now."""

import importlib.metadata
import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
_ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(_ROOT / "tests"), str(_ROOT)]

from peers import compare  # noqa: E402
from peers.cases import CASES, EDGES  # noqa: E402

_HEAD = """# Against torch, pytorch-metric-learning, optax and scikit-learn

`make test-peers` installs them into `.venv-peers` and compares every function
of the pure rooms that has a counterpart. This file is printed by

    .venv-peers/bin/python tests/peers/table.py > docs/peers.md

with {versions} on {python}.

## 200 random batches

24 embeddings of width 8 of up to 10 people, some with one image, and 200
scores with ties; `tests/peers/compare.py` has the rest. Ours computes in
float32 (metrics in float64), torch and scikit-learn in float64, optax in
float32. The figures are the largest difference of all batches, relative to
the batch's largest number: 1e-7 is float32's rounding.

"value" and "gradient" compare under the relation that is stated, which the
test asserts; "as called" is what one sees with both functions called as they
come, where that is not the same. PML is pytorch-metric-learning.

| ours | counterpart | value | gradient | as called | verdict | by the paper |
|---|---|---|---|---|---|---|
"""

_EDGE_HEAD = """
## Inputs out of the ordinary

| ours | counterpart | given | ours gives | theirs gives | by the paper |
|---|---|---|---|---|---|
"""

_TAIL = """
`mining.distance_weighted` draws at random: the test compares 4,000 draws with
the probabilities that PML computes on the same batch, by chi-square.

## Without a counterpart

None of the four has: `losses.csc413_as_written`, `center` and
`update_centers`, `adaface`, `magface`, `elasticface`, `partial_fc`,
`update_norm_statistics` and `combined_margin` with m1 other than 1;
`mining.by_blocks`; the heads, which are a linear layer over one of the
distances above; `metrics.eer`, `tar_at_far`, `threshold_at_*`, the intervals,
`cllr`, the open-set rates, score normalisation and fairness measures. They
are held by loops in float64 (`tests/reference/`) and, where there is one, by
a number of the paper. Samplers draw at random and have no number to compare.
"""


def static_cells(case: compare.Case) -> tuple[str, str, str, str]:
  """Returns what a row of the first table says besides its figures."""
  why = case.why or "they agree"
  return f"`{case.name}`", case.peer, case.verdict, why


def _figure(x: float) -> str:
  if x != x:
    return "-"
  return "0" if x == 0 else f"{x:.1e}" if x < 0.01 else f"{x:.2f}"


def _row(cells: list[str]) -> str:
  return f"| {' | '.join(cells)} |"


def main() -> None:
  names = ["torch", "pytorch-metric-learning", "optax", "scikit-learn", "jax"]
  versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)
  python = f"Python {sys.version_info[0]}.{sys.version_info[1]}, CPU"
  print(_HEAD.format(versions=versions, python=python), end="")
  batches = compare.make_batches()
  for case in CASES:
    found = compare.difference(case, batches)
    called = "-"
    if case.plain:
      called = _figure(compare.difference(case, batches, plain=True).value)
    name, peer, verdict, why = static_cells(case)
    figures = [_figure(found.value), _figure(found.gradient), called]
    print(_row([name, peer, *figures, verdict, why]), flush=True)
  print(_EDGE_HEAD, end="")
  for edge in EDGES:
    figures = [f"{float(f()):.4g}" for f in (edge.ours, edge.theirs)]
    name, *where = edge.name.split(", ", 1)
    name = ", ".join([f"`{name}`", *where])
    print(_row([name, edge.peer, edge.given, *figures, edge.why]))
  print(_TAIL, end="")


if __name__ == "__main__":
  main()
