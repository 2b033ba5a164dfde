"""Tests of the planner: known programs on CPU devices, TPUs where libtpu is."""

import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from facesiam_jax import errors, parallel
from facesiam_jax.training import chips, plan
from tests import tiny

_ROOT = pathlib.Path(__file__).parents[2]
_CHIP = chips.Chip("test", 1e9, flops=1e12, hbm_rate=1e11, link_rate=1e10)
_DEVICES = 8


def _mesh():
  return parallel.make_mesh(jax.devices()[:_DEVICES])


def _traced(function, *shapes, out=None):
  """A mapped function, traced for arrays of these global shapes, all split."""
  mesh = _mesh()
  sharding = NamedSharding(mesh, P(parallel.AXIS))
  args = [
    jax.ShapeDtypeStruct(s, jnp.float32, sharding=sharding) for s in shapes
  ]
  mapped = parallel.pmap(function, mesh, out_specs=out)
  return mapped.trace(*args)


def _measured(*args, chip=_CHIP, **kwargs):
  return plan.measure("test", _traced(*args, **kwargs), chip, _DEVICES)


def test_memory_and_flops_of_a_matrix_product():
  found = _measured(lambda x: x @ x.T, (_DEVICES * 96, 64))
  assert found.memory.arguments == 96 * 64 * 4
  assert found.memory.outputs == 96 * 96 * 4
  parts = found.memory
  assert parts.total == (
    parts.arguments + parts.outputs + parts.temporaries + parts.code
  )
  # XLA's CPU may count a transposition's moves; it does not count them as ten.
  assert found.flops == pytest.approx(2 * 96 * 96 * 64, rel=0.1)
  assert found.hbm_bytes >= parts.arguments + parts.outputs
  assert found.collectives == ()


def test_temporaries_hold_what_lives_between():
  # [b, 1] x [1, 1000] is made whole before it is sorted.
  step = lambda x: jnp.sort(x * jnp.arange(1000.0)[None, :], axis=1)[:, :1]
  found = _measured(step, (_DEVICES * 50, 1))
  assert 50 * 1000 * 4 <= found.memory.temporaries < 10 * 50 * 1000 * 4


def test_donated_arguments_are_not_outputs():
  mesh = _mesh()
  sharding = NamedSharding(mesh, P(parallel.AXIS))
  x = jax.ShapeDtypeStruct((_DEVICES * 100,), jnp.float32, sharding=sharding)
  step = parallel.pmap(lambda x: x + 1, mesh, donate_argnums=(0,))
  found = plan.measure("test", step.trace(x), _CHIP, _DEVICES)
  assert found.memory.arguments == 400 and found.memory.outputs == 0


@pytest.mark.parametrize(
  ("precision", "dtype", "times"),
  [
    (None, jnp.float32, 1),
    (lax.Precision.DEFAULT, jnp.float32, 1),
    (lax.Precision.HIGH, jnp.float32, 3),
    (lax.Precision.HIGHEST, jnp.float32, 6),
    (lax.Precision.HIGHEST, jnp.bfloat16, 1),
  ],
)
def test_precise_products_are_several(precision, dtype, times):
  def step(x):
    x = x.astype(dtype)
    return lax.dot(x, x.T, precision=precision)

  traced = _traced(step, (_DEVICES * 32, 16))
  flops, unit_flops = plan._flops(traced, 1000.0)
  assert flops == 1000
  assert unit_flops - flops == (times - 1) * 2 * 32 * 32 * 16


def test_later_rounds_of_a_loop_count_too():
  def step(x):
    body = lambda c, _: (c @ c, None)
    return lax.scan(body, x, None, length=5)[0]

  traced = _traced(step, (_DEVICES * 16, 16))
  assert plan._flops(traced, 0.0)[0] == 4 * 2 * 16**3


def test_times_and_what_limits():
  step = lambda x: lax.psum(x @ x.T, parallel.AXIS)
  shape = (_DEVICES * 64, 64)
  found = _measured(step, shape, out=P())
  sent = 2 * 7 / 8 * 64 * 64 * 4
  assert found.seconds == {
    "arithmetic": found.unit_flops / 1e12,
    "memory": found.hbm_bytes / 1e11,
    "links": sent / 1e10,
  }
  for name, field in (
    ("arithmetic", "flops"),
    ("memory", "hbm_rate"),
    ("links", "link_rate"),
  ):
    rates = {"flops": 1e15, "hbm_rate": 1e15, "link_rate": 1e15, field: 1e3}
    chip = chips.Chip("test", 1e9, **rates)
    limited = _measured(step, shape, out=P(), chip=chip)
    assert limited.limit == name
    assert limited.roofline == limited.seconds[name]


def test_what_does_not_fit_is_refused():
  chip = chips.Chip("test", 1e4, flops=1.0, hbm_rate=1.0, link_rate=1.0)
  with pytest.raises(errors.UserError, match="does not fit.*test chip") as told:
    _measured(lambda x: x + 1, (_DEVICES * 2000,), chip=chip)
  assert "smaller batch" in str(told.value)


def _bytes(tree):
  return sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


@pytest.mark.parametrize("num_images", [0, 48])
def test_training_step(num_images):
  config = tiny.config("supcon", objective__args={
    "num_people": 4, "images_per_person": 4})  # fmt: skip
  what, traced = plan.trace_train_step(
    config, _mesh(), num_people=8, num_images=num_images
  )
  found = plan.measure(what, traced, _CHIP, _DEVICES)
  assert "16 images of 16x16x1 (2 a chip), 8 people" in what
  state, data = traced.args_info[0]
  faces = num_images or 16 // _DEVICES
  parts = _bytes(state.params) + _bytes(state.opt_state)
  assert found.memory.arguments >= parts + faces * 16 * 16
  # Every gradient goes over the mesh, and comes back to where its parameter
  # was.
  summed = sum(
    one.num_bytes * one.times
    for one in found.collectives
    if one.kind == "all-reduce"
  )
  assert summed >= _bytes(state.params["encoder"])
  assert found.memory.outputs < 1000
  assert ("resident" if num_images else "streaming") in what
  assert found.flops > 0


def test_state_grows_with_the_people_where_each_has_a_centre():
  config = tiny.config("margin_softmax")
  few, many = (
    plan.trace_train_step(config, _mesh(), num_people=n)[1].args_info[0][0]
    for n in (8, 1008)
  )
  assert _bytes(many.params) - _bytes(few.params) == 1000 * 10 * 4


def test_a_batch_that_does_not_divide_is_refused():
  config = tiny.config("supcon", objective__args={
    "num_people": 3, "images_per_person": 4})  # fmt: skip
  with pytest.raises(errors.UserError, match="12 images .* by 8 chips"):
    plan.trace_train_step(config, _mesh(), num_people=8)


def test_gallery_search():
  what, traced = plan.trace_search(
    _mesh(), size=79_999, dim=64, queries=16, k=3
  )
  found = plan.measure(what, traced, _CHIP, _DEVICES)
  rows = 10_000  # 79,999 over 8, filled up
  assert found.memory.arguments >= rows * 64 * 4 + 16 * 64 * 4
  (gather,) = found.collectives
  # Scores and ids of the 3 best of each device for each query.
  assert gather.kind == "all-gather"
  assert gather.num_bytes * gather.times == 2 * 16 * 3 * 4 * _DEVICES
  product = 6 * 2 * 16 * rows * 64  # six times in bfloat16
  assert product < found.unit_flops < 2 * product


def test_gallery_search_in_int8():
  what, traced = plan.trace_search(
    _mesh(), size=79_999, dim=64, queries=16, k=3, dtype="int8"
  )
  found = plan.measure(what, traced, _CHIP, _DEVICES)
  assert "in int8, k = 3 by 64 candidates" in what
  # A byte a number; scale, residual, length and id; whether it is valid.
  rows = 10_000
  arguments = rows * (64 + 4 * 4 + 1) + 16 * 64 * 4
  assert found.memory.arguments == pytest.approx(arguments, abs=64)
  (gather,) = found.collectives
  assert gather.num_bytes * gather.times == 2 * 16 * 64 * 4 * _DEVICES
  # Products of whole numbers are made once.
  product = 2 * 16 * rows * 64
  assert product < found.unit_flops < 2 * product


def test_embedding_size():
  assert plan.embedding_size(tiny.config()) == 10


@pytest.mark.parametrize("topology", ["v9:2x2", "v5e", "", "2x2"])
def test_unknown_chips(topology):
  with pytest.raises(errors.UserError, match="v4, v5e, v5p, v6e"):
    plan.open_mesh(topology)


def test_without_libtpu_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(plan.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(errors.UserError, match=r"facesiam_jax\[plan\]"):
    plan.open_mesh("v5e:2x2")


def test_a_libtpu_of_another_jax_is_refused(monkeypatch):
  monkeypatch.setattr(plan.importlib.util, "find_spec", lambda _: True)
  monkeypatch.setattr(plan.metadata, "version", lambda _: "0.0.9")
  with pytest.raises(errors.UserError) as told:
    plan.open_mesh("v5e:2x2")
  assert "libtpu 0.0.9 does not go with jax" in str(told.value)
  assert "pip install 'libtpu==" in str(told.value)


class TestTpu:
  """What needs libtpu."""

  pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed (pip install 'facesiam_jax[plan]')",
  )

  @pytest.mark.parametrize(
    ("topology", "num_chips"),
    [("v4:2x2x2", 8), ("v5e:2x4", 8), ("v5p:2x2x1", 4), ("v6e:4x4", 16)],
  )
  def test_one_device_a_chip(self, topology, num_chips):
    assert plan.open_mesh(topology).size == num_chips

  @pytest.mark.parametrize("topology", ["v5e:3x5", "v5e:x", "v5e:two"])
  def test_impossible_shapes(self, topology):
    with pytest.raises(errors.UserError, match="cannot be laid out"):
      plan.open_mesh(topology)

  def _sum(self, rows):
    told = ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    kept = {k: v for k, v in os.environ.items() if k not in told}
    done = subprocess.run(
      [sys.executable, str(_ROOT / "tests/training/plan_worker.py"), str(rows)],
      env={**kept, "PYTHONPATH": str(_ROOT), "JAX_OPTIMIZATION_LEVEL": "O1"},
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

  def test_a_known_program(self):
    found = self._sum(512)
    assert found["memory"]["arguments"] == 512 * 256 * 4
    assert found["memory"]["outputs"] == 256 * 256 * 4
    assert found["flops"] == pytest.approx(2 * 512 * 256 * 256, rel=0.01)
    sums = [one for one in found["collectives"] if one[0] == "all-reduce"]
    assert sum(one[1] * one[3] for one in sums) == 256 * 256 * 4
    assert {one[2] for one in sums} == {16}

  def test_what_does_not_fit_is_refused(self):
    told = self._sum(20 * 2**20)["refused"]
    assert "does not fit: the sum needs" in told and " of 15" in told
