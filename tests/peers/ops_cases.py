"""Distances, similarities and norms against torch, optax and scikit-learn."""

import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances
from sklearn.metrics import pairwise

from facesiam_jax import ops
from peers.compare import Batch, Case

_XY = ("x", "y")


def _euclid(b: Batch) -> torch.Tensor:
  return F.pairwise_distance(b["x"], b["y"], eps=0.0)


def _pml_row_distance(b: Batch) -> torch.Tensor:
  squared = distances.LpDistance(normalize_embeddings=False, power=2)
  return squared.pairwise_distance(b["x"], b["y"])


def _chi_square(b: Batch) -> np.ndarray:
  x, y = np.abs(b["x"], dtype=np.float64), np.abs(b["y"], dtype=np.float64)
  return -pairwise.additive_chi2_kernel(x, y)


def _rows(name: str, peer: str, kind: str, theirs, **options) -> Case:
  function = getattr(ops, name)
  ours = lambda b: function(b["x"], b["y"])
  return Case(f"ops.{name}", peer, kind, ours, theirs, **options)


CASES = [
  _rows(
    "squared_distance",
    "PML LpDistance(power=2).pairwise_distance",
    "torch",
    lambda b: _pml_row_distance(b).square(),
    by=_XY,
    plain=(
      lambda b: ops.squared_distance(b["x"], b["y"]),
      lambda b: _pml_row_distance(b),
    ),
    verdict="not squared",
    why="PML's row-wise form ignores power=2, its matrix form (below) does "
    "not; it also adds 1e-6 to every difference of coordinates.",
  ),
  _rows(
    "euclidean_distance",
    "torch pairwise_distance(eps=0)",
    "torch",
    _euclid,
    by=_XY,
  ),
  _rows(
    "euclidean_distance",
    "torch pairwise_distance",
    "torch",
    lambda b: F.pairwise_distance(b["x"], b["y"]),
    by=_XY,
    verdict="same but for 1e-6",
    why="torch adds 1e-6 to every difference of coordinates, so that x = y has "
    "a gradient; see the second table for what that is worth.",
  ),
  _rows(
    "l1_distance",
    "torch pairwise_distance(p=1, eps=0)",
    "torch",
    lambda b: F.pairwise_distance(b["x"], b["y"], p=1, eps=0.0),
    by=_XY,
  ),
  _rows(
    "cosine_similarity",
    "torch cosine_similarity",
    "torch",
    lambda b: F.cosine_similarity(b["x"], b["y"]),
    by=_XY,
  ),
  _rows(
    "cosine_similarity",
    "optax cosine_similarity",
    "jax",
    lambda b: optax.losses.cosine_similarity(b["x"], b["y"]),
    by=_XY,
  ),
  _rows(
    "pairwise_dot",
    "PML DotProductSimilarity",
    "torch",
    lambda b: distances.DotProductSimilarity(normalize_embeddings=False)(
      b["x"], b["y"]
    ),
    by=_XY,
  ),
  _rows(
    "pairwise_cosine_similarity",
    "PML CosineSimilarity",
    "torch",
    lambda b: distances.CosineSimilarity()(b["x"], b["y"]),
    by=_XY,
  ),
  _rows(
    "pairwise_squared_distance",
    "PML LpDistance(power=2)",
    "torch",
    lambda b: distances.LpDistance(normalize_embeddings=False, power=2)(
      b["x"], b["y"]
    ),
    by=_XY,
  ),
  _rows(
    "pairwise_euclidean_distance",
    "torch cdist",
    "torch",
    lambda b: torch.cdist(b["x"], b["y"]),
    by=_XY,
  ),
  _rows(
    "pairwise_l1_distance",
    "torch cdist(p=1)",
    "torch",
    lambda b: torch.cdist(b["x"], b["y"], p=1.0),
    by=_XY,
  ),
  Case(
    "ops.pairwise_chi_square_distance",
    "scikit-learn additive_chi2_kernel",
    "numpy",
    lambda b: ops.pairwise_chi_square_distance(
      jnp.abs(b["x"]), jnp.abs(b["y"])
    ),
    _chi_square,
    verdict="sign differs",
    plain=(
      lambda b: ops.pairwise_chi_square_distance(
        jnp.abs(b["x"]), jnp.abs(b["y"])
      ),
      lambda b: -_chi_square(b),
    ),
    why="scikit-learn's is a similarity: minus the distance. DeepFace has the "
    "distance.",
  ),
  Case(
    "ops.chi_square_distance",
    "scikit-learn additive_chi2_kernel",
    "numpy",
    lambda b: ops.chi_square_distance(jnp.abs(b["x"]), jnp.abs(b["y"])),
    lambda b: np.diag(_chi_square(b)),
    verdict="sign differs",
    plain=(
      lambda b: ops.chi_square_distance(jnp.abs(b["x"]), jnp.abs(b["y"])),
      lambda b: -np.diag(_chi_square(b)),
    ),
    why="as above, row by row.",
  ),
  Case(
    "ops.l2_normalize",
    "torch normalize",
    "torch",
    lambda b: ops.l2_normalize(b["x"]) * jnp.arange(8.0)[None],
    lambda b: F.normalize(b["x"]) * torch.arange(8.0),
    by=("x",),
  ),
  Case(
    "ops.safe_sqrt",
    "torch sqrt",
    "torch",
    lambda b: ops.safe_sqrt(jnp.square(b["x"]) + 0.1),
    lambda b: torch.sqrt(b["x"].square() + 0.1),
    by=("x",),
  ),
]
