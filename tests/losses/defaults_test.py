"""The hyper-parameters that the losses take where none is given.

Most are the papers' own; the other tests pass theirs, so that a default that
slipped would go unseen.
"""

import inspect

import pytest

from facesiam_jax import losses

DEFAULTS = {
  "adaface": {"scale": 64.0, "margin": 0.4, "concentration": 0.333},
  "arcface": {"scale": 64.0, "margin": 0.5, "gradient": "exact"},
  "binary_cross_entropy": {"pos_weight": 1.0},
  "circle": {"margin": 0.25, "scale": 256.0},
  "combined_margin": {"scale": 64.0, "m1": 1.0, "m2": 0.3, "m3": 0.2},
  "contrastive": {"margin": 1.0},
  "cosface": {"scale": 64.0, "margin": 0.35},
  "csc413_as_run": {"margin": 1.0},
  "csc413_as_written": {"margin": 1.0},
  "elasticface": {"kind": "arc", "scale": 64.0, "std": 0.05, "plus": False},
  "magface": {
    "scale": 64.0,
    "norm_range": (10.0, 110.0),
    "margin_range": (0.45, 0.8),
    "regularizer": 35.0,
  },
  "margin_loss": {"beta": 1.2, "margin": 0.2},
  "multi_similarity": {"alpha": 2.0, "beta": 50.0, "base": 0.5},
  "n_pair": {"norm_penalty": 0.002},
  "nt_xent": {"temperature": 0.1, "other_positives": "keep"},
  "partial_fc": {"scale": 64.0, "sample_fraction": 1.0},
  "proxy_anchor": {"scale": 32.0, "margin": 0.1},
  "sphereface": {"margin": 4, "annealing": 5.0},
  "sphereface_annealing": {
    "start": 1000.0,
    "rate": 0.12,
    "power": 1.0,
    "least": 5.0,
  },
  "sub_center": {"scale": 64.0, "margin": 0.5, "gradient": "exact"},
  "supcon": {"temperature": 0.1},
  "triplet_margin": {"margin": 0.2},
  "update_centers": {"rate": 0.5},
  "update_norm_statistics": {"rate": 0.01},
}


def _defaults(function):
  return {
    name: argument.default
    for name, argument in inspect.signature(function).parameters.items()
    if argument.default not in (inspect.Parameter.empty, None)
  }


@pytest.mark.parametrize(
  "name", [name for name in losses.__all__ if name.islower()]
)
def test_defaults(name):
  assert _defaults(getattr(losses, name)) == DEFAULTS.get(name, {})
