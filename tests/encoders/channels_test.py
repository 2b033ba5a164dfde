"""Sums by channel, and batch normalisation made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType, PartitionSpec

from facesiam_jax.encoders import blocks, channels

# Rows: none, fewer than are added at a time, with and without some left over.
SHAPES = [(0, 3, 2, 4), (5,), (3, 4), (8, 3), (2, 5, 3, 7), (6, 7, 8, 33)]


def _values(shape, seed=0):
  rng = np.random.default_rng(seed)
  return rng.normal(2.0, 3.0, shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_sum_equals_float64(shape):
  values = _values(shape)
  wanted = np.float64(values).reshape(-1, shape[-1]).sum(0)
  got = jax.jit(channels.channel_sum)(values)
  assert got.dtype == jnp.float32 and got.shape == shape[-1:]
  np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)
  if values.size > 2 * shape[-1]:
    rows = np.float64(values).reshape(-1, shape[-1])
    for wrong in (rows[:-1].sum(0), rows.sum(0) + rows[-1], rows.sum(0)[::-1]):
      with pytest.raises(AssertionError):
        np.testing.assert_allclose(got, wanted * 0 + wrong, rtol=1e-5)


def test_many_rows_lose_nothing():
  values = _values((48, 56, 56, 3)) + 100
  wanted = np.float64(values).sum((0, 1, 2))
  np.testing.assert_allclose(channels.channel_sum(values), wanted, rtol=1e-5)


def test_half_precision_is_summed_in_float32():
  values = jnp.ones((3000, 2), jnp.bfloat16)
  total = channels.channel_sum(values)
  assert total.dtype == jnp.float32 and (total == 3000).all()
  gradient = jax.grad(lambda x: channels.channel_sum(x)[0])(values)
  assert gradient.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.float32(gradient), [[1, 0]] * 3000)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_gradients_are_broadcastings(shape):
  values, weights = _values(shape), _values(shape[-1:], 1)
  pull = lambda f, *args: jax.vjp(f, *args)[1]
  (got,) = pull(channels.channel_sum, values)(jnp.asarray(weights))
  np.testing.assert_array_equal(got, np.broadcast_to(weights, shape))
  spread = lambda x: channels.spread(x, shape)
  np.testing.assert_array_equal(spread(weights), got)
  (got,) = pull(spread, weights)(jnp.asarray(values))
  wanted = np.float64(values).reshape(-1, shape[-1]).sum(0)
  np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)


def _plain(values, mean, factor, offset):
  row = lambda x: x.reshape((1,) * (values.ndim - 1) + x.shape)
  return (values - row(mean)) * row(factor) + row(offset)


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_normalize_is_its_formula_with_its_gradient(shape):
  values, cotangent = _values(shape), _values(shape, 9)
  numbers = [_values(shape[-1:], seed) for seed in (1, 2, 3)]
  got = jax.vjp(channels.normalize, values, *numbers)
  wanted = jax.vjp(_plain, values, *numbers)
  np.testing.assert_allclose(got[0], wanted[0], rtol=1e-6)
  for a, b in zip(got[1](cotangent), wanted[1](cotangent), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-3)


def _step(module, variables, inputs, cotangent, **how):
  def run(params, inputs):
    return module.apply(
      {**variables, "params": params}, inputs, mutable=["batch_stats"], **how
    )

  outputs, pull, kept = jax.vjp(run, variables["params"], inputs, has_aux=True)
  return outputs, kept, pull(cotangent)


@pytest.mark.parametrize("shape", [(9, 5), (4, 3, 5, 6), (1, 2, 2, 3)])
def test_batch_norm_is_flaxs(shape):
  inputs, cotangent = _values(shape), _values(shape, 5)
  own, flaxs = blocks.BatchNorm(), nn.BatchNorm(momentum=0.9)
  variables = own.init(jax.random.key(0), inputs, train=True)
  theirs = flaxs.init(jax.random.key(0), inputs, use_running_average=False)
  jax.tree.map(np.testing.assert_array_equal, variables, theirs)
  variables["params"] = {
    "scale": _values(shape[-1:], 1), "bias": _values(shape[-1:], 2)
  }  # fmt: skip
  got = _step(own, variables, inputs, cotangent, train=True)
  how = {"use_running_average": False}
  wanted = _step(flaxs, variables, inputs, cotangent, **how)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)
  jax.tree.map(close, got, wanted)
  kept = {**variables, **got[1]}
  still = own.apply(kept, inputs, train=False)
  close(still, flaxs.apply(kept, inputs, use_running_average=True))


def test_batch_norm_of_equal_values_is_its_bias():
  inputs = jnp.full((6, 4, 4, 2), 1234.5)
  module = blocks.BatchNorm()
  variables = module.init(jax.random.key(0), inputs, train=True)
  loss = lambda x: jnp.sum(
    module.apply(variables, x, train=True, mutable=["batch_stats"])[0] ** 2
  )
  value, gradient = jax.value_and_grad(loss)(inputs)
  assert value == 0 and np.isfinite(gradient).all()


def test_inside_scan_and_shard_map(devices):
  images, scale = _values((8, 3, 4, 5)), _values((5,), 1)

  def loss(scale, images):
    outputs = images * channels.spread(scale, images.shape)
    return jnp.sum(channels.channel_sum(outputs**2))

  mesh = jax.make_mesh((8,), ("d",), (AxisType.Auto,), devices=devices)
  mapped = jax.shard_map(
    lambda s, x: jax.lax.psum(jax.grad(loss)(s, x), "d"),
    mesh=mesh,
    in_specs=(PartitionSpec(), PartitionSpec("d")),
    out_specs=PartitionSpec(),
    check_vma=False,
  )

  def body(total, images):
    return total + jax.grad(loss)(scale, images[None]), None

  wanted = 2 * scale * np.float64(images**2).sum((0, 1, 2))
  scanned = jax.jit(lambda x: jax.lax.scan(body, jnp.zeros(5), x)[0])
  for got in (jax.jit(mapped)(scale, images), scanned(images)):
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


@pytest.mark.parametrize("platform, own", [("cpu", True), ("tpu", False)])
def test_other_platforms_keep_their_own_sum(platform, own):
  traced = jax.jit(channels.channel_sum).trace(jnp.ones((16, 3)))
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert ("dot_general" in text) == own
