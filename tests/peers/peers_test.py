"""Every function that torch, PML, optax or scikit-learn has too, against it."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

_REASON = "make test-peers installs it"
torch = pytest.importorskip("torch", reason=_REASON)
pytest.importorskip("pytorch_metric_learning", reason=_REASON)

from pytorch_metric_learning import miners  # noqa: E402
from scipy import stats  # noqa: E402

from facesiam_jax import mining, ops  # noqa: E402
from peers import compare, table  # noqa: E402
from peers.cases import CASES, EDGES  # noqa: E402

pytestmark = [
  pytest.mark.slow,
  # PML's SphereFace asks NumPy for something of a tensor.
  pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning"),
]
_TABLE = pathlib.Path(__file__).parents[2] / "docs" / "peers.md"
_named = lambda entries: [f"{e.name}-{e.peer}" for e in entries]


@pytest.fixture(scope="module")
def batches() -> list[compare.Batch]:
  return compare.make_batches()


@pytest.mark.parametrize("case", CASES, ids=_named(CASES))
def test_agrees_on_200_batches(
  case: compare.Case, batches: list[compare.Batch]
) -> None:
  found = compare.difference(case, batches)
  assert found.value <= case.tolerance, found
  if case.by:
    assert found.gradient <= case.gradient_tolerance, found
  if case.plain is not None:
    # Else the table would speak of a difference that is none.
    called = compare.difference(case, batches, plain=True)
    assert called.value > 1e-3, called


@pytest.mark.parametrize("edge", EDGES, ids=_named(EDGES))
def test_edges_are_as_the_table_says(edge: compare.Edge) -> None:
  ours, theirs = float(edge.ours()), float(edge.theirs())
  np.testing.assert_allclose(ours, edge.right, rtol=1e-5)
  assert np.isfinite(ours)
  assert not np.isclose(theirs, ours, rtol=1e-3, atol=0.0), theirs


def test_the_table_has_every_case_and_edge() -> None:
  rows = [line for line in _TABLE.read_text().splitlines() if line[:1] == "|"]
  rows = [[cell.strip() for cell in row.split(" | ")] for row in rows]
  said = {
    (r[0].strip("| "), r[1], r[5], r[6].rstrip(" |"))
    for r in rows
    if len(r) == 7
  }
  assert {table.static_cells(case) for case in CASES} <= said
  # One more: the head of the table.
  assert len(said) == len({table.static_cells(c) for c in CASES}) + 1
  assert {e.given for e in EDGES} <= {r[2] for r in rows if len(r) == 6}


def test_distance_weighted_draws_with_pmls_probabilities(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  batch = compare.make_batch(0)
  x, ids = ops.l2_normalize(batch["x"]), jnp.asarray(batch["ids"])
  seen = []
  module = miners.distance_weighted_miner.lmu
  monkeypatch.setattr(
    module,
    "get_random_triplet_indices",
    lambda labels, ref_labels, weights: seen.append(weights) or (labels,) * 3,
  )
  miners.DistanceWeightedMiner()(
    torch.from_numpy(batch["x"]).double(), torch.from_numpy(batch["ids"])
  )
  draw = lambda key: mining.distance_weighted(
    ops.pairwise_euclidean_distance(x, x),
    ids,
    ids,
    anchor_rows=jnp.arange(len(ids)),
    key=key,
    dimension=x.shape[1],
    positive="hardest",
  )
  drawn = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000))
  for anchor, shares in enumerate(seen[0].numpy()):
    if not float(drawn.weights[0, anchor]):
      continue
    negatives = np.asarray(drawn.negatives[:, anchor])
    counts = np.bincount(negatives, minlength=len(ids))
    assert not counts[shares == 0].any()
    often = shares > 1e-3
    expected = np.append(shares[often], shares[~often].sum()) * 4000
    found = np.append(counts[often], counts[~often].sum())
    kept = expected > 0
    test = stats.chisquare(found[kept], expected[kept])
    assert test.pvalue > 1e-5, (anchor, test.pvalue)
