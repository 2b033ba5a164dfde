"""Tests of facesiam_jax.parallel: equal to jax.pmap, whatever the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from facesiam_jax import parallel


def _step(x, w):
  """A step with a collective in it, for one device."""
  loss = lambda w: jnp.mean(jnp.square(jnp.dot(x, w)))
  value, grad = jax.value_and_grad(loss)(w)
  return lax.pmean(value, "data"), lax.pmean(grad, "data")


def test_equals_jax_pmap(devices):
  x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
  w = np.arange(5, dtype=np.float32)
  mesh = parallel.make_mesh(devices)
  ours = parallel.pmap(_step, mesh, in_specs=(P("data"), P()), out_specs=P())
  theirs = jax.pmap(_step, axis_name="data", in_axes=(0, None))
  value, grad = ours(x, w)
  expected_value, expected_grad = theirs(x.reshape(8, 2, 5), w)
  np.testing.assert_allclose(value, expected_value[0], rtol=2e-7)
  np.testing.assert_allclose(grad, expected_grad[0], rtol=1e-6)


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_gradient_is_that_of_the_global_batch(devices, num_devices):
  x = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
  w = np.arange(5, dtype=np.float32)
  mesh = parallel.make_mesh(devices[:num_devices])
  mapped = parallel.pmap(_step, mesh, in_specs=(P("data"), P()), out_specs=P())
  whole = jax.grad(lambda w: jnp.mean(jnp.square(jnp.dot(x, w))))(w)
  np.testing.assert_allclose(mapped(x, w)[1], whole, rtol=1e-5)


def test_default_specs_split_the_first_axis(devices):
  mesh = parallel.make_mesh(devices)
  x = np.arange(16.0, dtype=np.float32)
  doubled = parallel.pmap(lambda x: 2 * x, mesh)(x)
  np.testing.assert_array_equal(doubled, 2 * x)
  assert len(doubled.sharding.device_set) == 8


def test_own_rows_cover_the_global_batch(devices):
  mesh = parallel.make_mesh(devices)
  rows = parallel.pmap(
    lambda: parallel.own_rows(24), mesh, in_specs=(), out_specs=P("data")
  )
  np.testing.assert_array_equal(rows(), np.arange(24))
  uneven = parallel.pmap(
    lambda: parallel.own_rows(20), mesh, in_specs=(), out_specs=P("data")
  )
  with pytest.raises(ValueError, match="20 rows does not divide by 8"):
    uneven()


def test_replicate_puts_a_copy_on_every_device(devices):
  mesh = parallel.make_mesh(devices)
  x = parallel.replicate({"a": np.ones(3)}, mesh)["a"]
  assert len(x.addressable_shards) == 8
  assert all(shard.data.shape == (3,) for shard in x.addressable_shards)


@pytest.mark.parametrize(
  "given, settings, match",
  [
    (("127.0.0.1:1", 2, None), {}, "go together"),
    ((None, 2, 0), {}, "go together"),
    (("127.0.0.1:1", 2, 2), {}, r"process_id must be in 0\.\.1, got 2"),
    (("127.0.0.1:1", 2, 0), {"detect": True}, "must not be given too"),
    ((None, None, None), {"cpu_devices": 0}, "at least 1, got 0"),
  ],
)
def test_processes_that_cannot_be_told_are_refused(given, settings, match):
  with pytest.raises(ValueError, match=match):
    parallel.start(*given, **settings)


def test_alone_a_process_waits_for_nobody():
  parallel.start()
  parallel.start(None, 1)
  parallel.barrier("nobody else")
  parallel.leave_at_exit()
  assert parallel.is_main() and parallel.from_main(7) == 7
