"""Which classes a step of Partial FC takes, and how many a shard keeps."""

import functools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import lax
from reference import margin_softmax as reference
from wrong import partial_fc as wrong

from facesiam_jax import parallel
from facesiam_jax.losses.partial_fc import (
  class_priorities,
  sample_classes,
  sample_size,
  shard_columns,
)

AXIS = parallel.AXIS
KEY = jax.random.key(12)
COUNTS = [1, 2, 4, 8]


def test_sample_does_not_know_the_number_of_devices(devices, monkeypatch):
  """Also where priorities are equal: the lower class number goes first."""
  # The key carries how many different priorities there are.
  monkeypatch.setattr(
    sys.modules["facesiam_jax.losses.partial_fc"],
    "class_priorities",
    lambda pair, classes: class_priorities(pair[0], classes) % pair[1],
  )
  positives = np.zeros(48, bool)
  positives[[0, 13, 14, 40]] = True

  def own(pair, positives, *, num_sampled):
    shard = len(positives)
    # Three padding rows behind 45 classes are never drawn.
    return sample_classes(
      pair,
      positives,
      lax.axis_index(AXIS) * shard + jnp.arange(shard),
      num_classes=45,
      num_sampled=num_sampled,
      axis_name=AXIS,
    )

  spec = jax.sharding.PartitionSpec
  # Of few classes the largest number is small, of most it has all 32 bits.
  for count, num_sampled in zip(
    [*COUNTS, 4], [20, 20, 20, 20, 40], strict=True
  ):
    mapped = parallel.pmap(
      functools.partial(own, num_sampled=num_sampled),
      parallel.make_mesh(devices[:count]),
      in_specs=(spec(), spec(AXIS)),
    )
    for distinct in (2**32 - 1, 5, 1):
      found = mapped((KEY, np.uint32(distinct)), positives)
      expected = reference.sample(
        wrong.priorities(KEY, 45) % np.uint32(distinct),
        np.flatnonzero(positives),
        np.ones(4),
        num_sampled,
      )
      np.testing.assert_array_equal(np.flatnonzero(found), expected)


def test_every_class_is_drawn_equally_often():
  """400 steps: 10 of 40 others each time, by a chi-square test."""
  positives = np.zeros(42, bool)
  positives[[3, 17]] = True

  def draw(step):
    return sample_classes(
      jax.random.fold_in(KEY, step),
      positives,
      jnp.arange(42),
      num_classes=42,
      num_sampled=12,
      axis_name=AXIS,
    )

  one = lambda step: jax.vmap(draw, axis_name=AXIS)(step[None])[0]
  drawn = np.asarray(jax.jit(jax.vmap(one))(jnp.arange(400)))
  np.testing.assert_array_equal(drawn.sum(axis=1), np.full(400, 12))
  assert drawn[:, positives].all()
  others = drawn[:, ~positives].sum(axis=0)
  # Without replacement: variance n p q, not n p.
  statistic = np.sum((others - 100.0) ** 2) / (100.0 * 0.75) * 39 / 40
  assert 0.001 < scipy.stats.chi2.sf(statistic, 39) < 0.999
  assert len(np.unique(drawn, axis=0)) == 400, "each step its own sample"


def test_sample_size_never_falls_below_a_batch():
  assert sample_size(0.1, 1000, 32) == 100
  assert sample_size(0.01, 1000, 32) == 32
  assert sample_size(0.01, 20, 32) == 20
  assert sample_size(1.0, 1000, 32) == 1000
  assert [sample_size(f, 1000, 1) for f in (0.0563, 0.0567)] == [56, 57]


@pytest.mark.parametrize(
  ("num_sampled", "slack"), [(1000, 29.3888), (2250, 32.2485)]
)
def test_width_is_the_share_and_the_slack_of_bernstein(num_sampled, slack):
  """The slack t solves t^2 / (2 (mean + t / 3)) = 40."""
  mean = num_sampled * 1000 / 1_000_000
  assert math.isclose(slack**2 / (2 * (mean + slack / 3)), 40, rel_tol=1e-5)
  for batch_rows in (1, 5):
    width = math.ceil(mean + slack) + batch_rows
    assert shard_columns(num_sampled, 1_000_000, 1000, batch_rows) == width
  assert shard_columns(num_sampled, 1000, 7, 5) == 7
  assert shard_columns(20, 1_000_000, 50_000, 5) == 20


@pytest.mark.parametrize(
  ("num_sampled", "num_classes", "shard", "batch_rows"),
  [
    (100, 1000, 125, 8),
    (10_000, 100_000, 12_500, 512),
    (200_000, 2_000_000, 250_000, 1024),
    (2_000, 2_000_000, 31_250, 1024),
  ],
)
def test_a_shard_practically_never_overflows(
  num_sampled, num_classes, shard, batch_rows
):
  width = shard_columns(num_sampled, num_classes, shard, batch_rows)
  assert width <= min(shard, num_sampled)
  chance = scipy.stats.hypergeom.logsf(
    width - batch_rows, num_classes, shard, num_sampled
  )
  assert width == min(shard, num_sampled) or chance < -40
  # And yet it is little more than the share: that is the saving.
  share = num_sampled * shard / num_classes
  assert width < share + batch_rows + 14 + 9 * math.sqrt(share) + 15
