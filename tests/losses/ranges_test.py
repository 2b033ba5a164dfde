"""Every option of a loss up to the ends of its range, and just beyond."""

import math
from functools import partial

import jax
import numpy as np
import pytest

from facesiam_jax import losses, parallel
from facesiam_jax.losses import margins

X = np.ones((2, 3), np.float32)
FLAT = np.ones(2, np.float32)
IDS = np.array([0, 1], np.int32)
NEAR = ((-0.5,), (0.0, 0.5))
RIGHT_ANGLE = ((-0.5, 1.6), (0.0, 0.5, math.pi / 2))
POSITIVE = ((0.0, -0.5), (0.5, 2.0))
SHARE = ((-0.5, 1.5), (0.0, 0.5, 1.0))
UP_TO_TWO = ((-0.5, 2.5), (0.0, 0.5, 2.0))

_ROWS = {"anchor_rows": IDS}
_STATISTICS = {"statistics": losses.NormStatistics()}
_KEY = {"key": jax.random.key(0)}
_BATCH = (X, IDS, X, IDS)
_SHARDS = (X[None], X[None], IDS[None])


def _partial_fc(*args, num_classes=2, **options):
  """The loss of one device that holds both classes."""
  loss = partial(
    losses.partial_fc,
    target=lambda cosines, norms: cosines,
    num_classes=num_classes,
    axis_name=parallel.AXIS,
    **options,
  )
  return jax.vmap(loss, axis_name=parallel.AXIS)(*args)


# function, arguments, fixed options -> option -> (refused, taken).
CASES = [
  (losses.supcon, _BATCH, _ROWS, {"temperature": POSITIVE}),
  (losses.nt_xent, _BATCH, _ROWS, {"temperature": POSITIVE}),
  (losses.n_pair, _BATCH, _ROWS, {"norm_penalty": NEAR}),
  (
    losses.multi_similarity,
    _BATCH,
    _ROWS,
    {
      "alpha": POSITIVE,
      "beta": POSITIVE,
      "base": ((-1.5, 1.5), (-1.0, -0.5, 0.0, 1.0)),
    },
  ),
  (losses.circle, _BATCH, _ROWS, {"margin": SHARE, "scale": POSITIVE}),
  (losses.proxy_anchor, _BATCH, {}, {"margin": SHARE, "scale": POSITIVE}),
  (
    losses.proxy_anchor,
    (X[:1], IDS[:1], X[:1], IDS[:1]),
    {},
    {"num_proxies": ((0, -1), (1, 2))},
  ),
  (losses.update_centers, (X, X, IDS), {}, {"rate": SHARE}),
  (losses.binary_cross_entropy, (FLAT, IDS), {}, {"pos_weight": POSITIVE}),
  (losses.contrastive, (FLAT, IDS), {}, {"margin": POSITIVE}),
  (losses.margin_loss, (FLAT, IDS), {}, {"margin": POSITIVE}),
  (losses.triplet_margin, (FLAT, FLAT), {}, {"margin": POSITIVE}),
  (losses.csc413_as_written, (X, X, X), {}, {"margin": POSITIVE}),
  (losses.csc413_as_run, (X, X, X), {}, {"margin": POSITIVE}),
  (margins.cosface, (FLAT,), {}, {"margin": UP_TO_TWO}),
  (margins.arcface, (FLAT,), {}, {"margin": RIGHT_ANGLE}),
  (
    margins.combined,
    (FLAT,),
    {},
    {"m1": POSITIVE, "m2": RIGHT_ANGLE, "m3": UP_TO_TWO},
  ),
  (
    margins.sphereface,
    (FLAT,),
    {},
    {"margin": ((0, -1, 1.5), (1, 2)), "annealing": NEAR},
  ),
  (
    margins.adaface,
    (FLAT, FLAT, losses.NormStatistics()),
    {},
    {"margin": RIGHT_ANGLE, "concentration": NEAR},
  ),
  (
    margins.elasticface,
    (FLAT, IDS),
    _KEY,
    {"margin": RIGHT_ANGLE, "std": NEAR},
  ),
  (
    margins.elasticface,
    (FLAT, IDS),
    {**_KEY, "kind": "cos"},
    {"margin": UP_TO_TWO},
  ),
  (losses.adaface, (X, X, IDS), _STATISTICS, {"scale": POSITIVE}),
  (
    losses.magface,
    (X, X, IDS),
    {},
    {
      "norm_range": (
        ((0.0, 1.0), (-0.5, 1.0), (1.0, 1.0), (1.0, 0.5)),
        ((0.5, 1.0), (10.0, 10.5)),
      ),
      "margin_range": (
        ((-0.5, 0.5), (0.0, 1.6), (0.5, 0.25)),
        ((0.0, math.pi / 2), (0.5, 0.5)),
      ),
      "regularizer": NEAR,
      "scale": POSITIVE,
    },
  ),
  (
    losses.update_norm_statistics,
    (losses.NormStatistics(), X),
    {},
    {"rate": SHARE},
  ),
  (
    _partial_fc,
    _SHARDS,
    _KEY,
    {
      "scale": POSITIVE,
      "sample_fraction": ((0.0, -0.5, 1.5), (0.5, 1.0)),
      "num_classes": ((0, -1, 3), (2,)),
    },
  ),
  (
    _partial_fc,
    (X[None], X[None], np.zeros((1, 2), np.int32)),
    {},
    {"num_classes": ((0,), (1,)), "sample_fraction": ((0.5,), (1.0,))},
  ),
]


def _cases(which):
  return [
    pytest.param(
      partial(function, *args, **fixed, **{name: value}),
      name,
      id=f"{function.__name__}-{name}-{value}",
    )
    for function, args, fixed, options in CASES
    for name, ends in options.items()
    for value in ends[which]
  ]


@pytest.mark.parametrize("call, name", _cases(0))
def test_beyond_its_range_it_is_refused(call, name):
  with pytest.raises(ValueError, match=name):
    jax.eval_shape(call)


@pytest.mark.parametrize("call, name", _cases(1))
def test_within_its_range_it_is_taken(call, name):
  del name
  jax.eval_shape(call)
