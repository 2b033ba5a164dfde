"""Miners against those of pytorch-metric-learning: the same pairs exactly."""

from typing import Any

import jax
import jax.numpy as jnp
import torch
from pytorch_metric_learning import miners
from pytorch_metric_learning.utils import loss_and_miner_utils

from facesiam_jax import mining, ops
from peers.compare import ROWS, Batch, Case

_ROWS = jnp.arange(ROWS)
# Wider than any distance of unit vectors: PML's window has no upper end here.
_NO_END = 9.0


def _distances(b: Batch) -> jax.Array:
  unit = ops.l2_normalize(b["x"])
  return ops.pairwise_euclidean_distance(unit, unit)


def _mine(function, b: Batch, **options) -> Any:
  return function(
    _distances(b), b["ids"], b["ids"], anchor_rows=_ROWS, **options
  )


def _triplets(function, **options):
  """One triplet an anchor: 1 + positive, 1 + negative, or 0 for none."""

  def ours(b: Batch) -> jax.Array:
    found = _mine(function, b, **options)
    return jnp.stack(found[:2], axis=1) * found.weights[:, None] + jnp.stack(
      [found.weights, found.weights], axis=1
    )

  return ours


def _pml_triplets(miner) -> Any:
  def theirs(b: Batch) -> torch.Tensor:
    pairs = miner(b["x"], b["ids"])
    found = torch.zeros(ROWS, 2)
    found[pairs[0], 0] = pairs[1] + 1.0
    found[pairs[0], 1] = pairs[-1] + 1.0
    return found

  return theirs


def _semi_hard(b: Batch) -> jax.Array:
  """1 + nearest negative in the window of each (anchor, positive), or 0."""
  found = _mine(mining.semi_hard, b, max_positives=ROWS - 1, fallback="none")
  marks = (found.negatives + 1) * found.weights
  return jnp.zeros((ROWS, ROWS)).at[_ROWS[:, None], found.positives].add(marks)


def _pml_semi_hard(b: Batch) -> torch.Tensor:
  miner = miners.TripletMarginMiner(type_of_triplets="semihard")
  found = torch.zeros(ROWS, ROWS)
  unit = torch.nn.functional.normalize(b["x"])
  far = torch.cdist(unit, unit)
  least = torch.full((ROWS, ROWS), torch.inf, dtype=torch.float64)
  for a, p, n in torch.stack(miner(b["x"], b["ids"])).T.tolist():
    if far[a, n] < least[a, p]:
      least[a, p], found[a, p] = far[a, n], n + 1
  return found


def _all(b: Batch) -> jax.Array:
  masks = mining.all_triplets(b["ids"], b["ids"], anchor_rows=_ROWS)
  return masks.positives[:, :, None] & masks.negatives[:, None, :]


def _pml_all(b: Batch) -> torch.Tensor:
  found = torch.zeros(ROWS, ROWS, ROWS)
  found[loss_and_miner_utils.get_all_triplets_indices(b["ids"])] = 1
  return found


def _pml_pairs(b: Batch) -> torch.Tensor:
  a1, p, a2, n = miners.MultiSimilarityMiner()(b["x"], b["ids"])
  found = torch.zeros(2, ROWS, ROWS)
  found[0, a1, p] = 1
  found[1, a2, n] = 1
  return found


def _pairs(b: Batch) -> jax.Array:
  similarities = ops.pairwise_cosine_similarity(b["x"], b["x"])
  return jnp.stack(
    mining.multi_similarity(similarities, b["ids"], b["ids"], anchor_rows=_ROWS)
  )


CASES = [
  Case(
    "mining.all_triplets",
    "PML get_all_triplets_indices",
    "torch",
    _all,
    _pml_all,
    tolerance=0,
  ),
  Case(
    "mining.batch_hard",
    "PML BatchHardMiner",
    "torch",
    _triplets(mining.batch_hard),
    _pml_triplets(miners.BatchHardMiner()),
    tolerance=0,
  ),
  Case(
    "mining.batch_easy_positive",
    'PML BatchEasyHardMiner("easy", "semihard")',
    "torch",
    _triplets(mining.batch_easy_positive, margin=_NO_END, fallback="none"),
    _pml_triplets(miners.BatchEasyHardMiner("easy", "semihard")),
    tolerance=0,
    plain=(
      _triplets(mining.batch_easy_positive),
      _pml_triplets(miners.BatchEasyHardMiner("easy", "semihard")),
    ),
    verdict="no fallback",
    why="where no negative is farther than the positive PML leaves the "
    'anchor out, as ours with fallback="none"; FaceNet does not say what '
    "to do then.",
  ),
  Case(
    "mining.batch_easy_positive",
    'PML BatchEasyHardMiner("easy", "hard")',
    "torch",
    _triplets(mining.batch_easy_positive, negative="hard"),
    _pml_triplets(miners.BatchEasyHardMiner("easy", "hard")),
    tolerance=0,
  ),
  Case(
    "mining.semi_hard",
    'PML TripletMarginMiner("semihard")',
    "torch",
    _semi_hard,
    _pml_semi_hard,
    tolerance=0,
    why="PML gives all negatives of the window, ours the nearest of them.",
  ),
  Case(
    "mining.multi_similarity",
    "PML MultiSimilarityMiner",
    "torch",
    _pairs,
    _pml_pairs,
    tolerance=0,
  ),
]
