"""Tests of what is read from compiled programs, with known collectives."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from facesiam_jax import parallel
from facesiam_jax.training import hlo

_FLOATS = 1000  # of a device; 4 kB


def _found(step, num_devices=8):
  mesh = parallel.make_mesh(jax.devices()[:num_devices])
  shape = jax.ShapeDtypeStruct((num_devices * _FLOATS,), jnp.float32)
  mapped = parallel.pmap(step, mesh, out_specs=P())
  text = mapped.lower(shape).compile().as_text()
  return hlo.collectives(text, num_devices)


@pytest.mark.parametrize(
  ("step", "kind", "num_bytes", "sent"),
  [
    # Around a ring each byte is sent on 7 of 8 times, and twice for a sum.
    (lambda x: lax.psum(x, "data"), "all-reduce", 4000, 7000),
    (lambda x: lax.pmax(x, "data"), "all-reduce", 4000, 7000),
    (
      lambda x: lax.all_gather(x, "data", tiled=True),
      "all-gather",
      32000,
      28000,
    ),
    (
      lambda x: lax.psum_scatter(x, "data", tiled=True),
      "reduce-scatter",
      4000,
      3500,
    ),
    (
      lambda x: lax.all_to_all(x.reshape(8, 125), "data", 0, 0),
      "all-to-all",
      4000,
      3500,
    ),
    (
      lambda x: lax.ppermute(x, "data", [(i, (i + 1) % 8) for i in range(8)]),
      "collective-permute",
      4000,
      4000,
    ),
  ],
  ids=lambda x: x if isinstance(x, str) else "",
)
def test_one_collective(step, kind, num_bytes, sent):
  assert _found(step) == [hlo.Collective(kind, num_bytes, 8, 1)]
  assert _found(step)[0].sent_bytes == sent


def test_several_arrays_go_in_one_or_several_but_all_count():
  def step(x):
    ints = x.astype(jnp.int32).astype(jnp.int16)
    return lax.psum((x[:10], x[:300] * 2, ints), "data")

  found = _found(step)
  total = sum(one.num_bytes * one.times for one in found)
  # XLA's CPU adds up int16 as it is or as int32.
  assert total in (40 + 1200 + 2000, 40 + 1200 + 4000)


def test_loops_count_as_often_as_they_run():
  def step(x):
    body = lambda c, _: (lax.psum(c, "data") * 0.1, None)
    return lax.scan(body, x, None, length=5)[0]

  assert _found(step) == [hlo.Collective("all-reduce", 4000, 8, 5)]


def test_loops_in_loops_multiply():
  def step(x):
    inner = lambda c, _: (lax.psum(c, "data") * 0.1, None)
    outer = lambda c, _: (lax.scan(inner, c, None, length=3)[0] + 1.0, None)
    return lax.scan(outer, x, None, length=4)[0]

  assert _found(step) == [hlo.Collective("all-reduce", 4000, 8, 12)]


def test_groups_smaller_than_the_mesh():
  groups = [[0, 1], [2, 3], [4, 5], [6, 7]]
  step = lambda x: lax.psum(x, "data", axis_index_groups=groups)
  found = _found(step)
  assert found == [hlo.Collective("all-reduce", 4000, 2, 1)]
  assert found[0].sent_bytes == 4000


def test_one_device_and_no_collective():
  assert _found(lambda x: lax.psum(x, "data"), num_devices=1) == []
  assert _found(lambda x: jnp.sum(x)) == []
  assert hlo.collectives("", 8) == []


# The forms that a compiler for TPUs writes and XLA's CPU does not.
_TEXT = """HloModule pod, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%condition.1 (p: (s32[], bf16[8,128])) -> pred[] {
  %constant.2 = s32[]{:T(128)} constant(16), metadata={op_name="while"}
  %p = (s32[], bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %constant.2), direction=LT
}

%body.1 (p: (s32[], bf16[8,128])) -> (s32[], bf16[8,128]) {
  %p = (s32[], /*index=1*/bf16[8,128]{1,0:T(8,128)(2,1)}) parameter(0)
  %x = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%p), index=1
  %g = (bf16[8,128]{1,0}, bf16[32,128]{1,0:T(8,128)(2,1)S(1)}) \
all-gather-start(%x), channel_id=1, replica_groups=[2,4]<=[8], dimensions={0}
  %d = bf16[32,128]{1,0:T(8,128)(2,1)S(1)} all-gather-done(%g)
  ROOT %t = (s32[], bf16[8,128]{1,0}) tuple(%i, %x)
}

ENTRY %main (x: bf16[8,128]) -> f32[64] {
  %x = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %w = (s32[], bf16[8,128]{1,0}) while(%t), condition=%condition.1, body=%body.1
  %r = (f32[64]{0:T(128)S(1)}, /*index=1*/f32[2,2]{1,0}) all-reduce(%u, %v), \
replica_groups={{0,1,2,3,4,5,6,7}}, metadata={op_name="all-gather("}
  %c = (f32[4]{0}, f32[4]{0}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%z), source_target_pairs={{0,1},{1,0}}
  %s = f32[16]{0:T(128)} reduce-scatter(%y), replica_groups={}, to_apply=%add
  ROOT %o = f32[64]{0:T(128)} copy(%q)
}
"""


def test_forms_of_tpus():
  assert set(hlo.collectives(_TEXT, 8)) == {
    hlo.Collective("all-gather", 32 * 128 * 2, 4, 16),
    hlo.Collective("all-reduce", 64 * 4 + 16, 8, 1),
    hlo.Collective("collective-permute", 16, 8, 1),
    hlo.Collective("reduce-scatter", 8 * 64, 8, 1),
  }
  sent = [one.sent_bytes for one in hlo.collectives(_TEXT, 8)]
  assert sent == sorted(sent, reverse=True)
