"""Gradients of float64 references, and losses over several devices."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from facesiam_jax import ops, parallel


def gradient(function, x, step=1e-6):
  """Central differences of a float64 scalar function of an array.

  Use it on the NumPy reference, not on the float32 implementation: there the
  differences are exact to about 1e-9, here they would be noise.
  """
  x = np.asarray(x, np.float64)
  result = np.zeros_like(x)
  for place in np.ndindex(x.shape):
    moved = x.copy()
    moved[place] = x[place] + step
    above = function(moved)
    moved[place] = x[place] - step
    result[place] = (above - function(moved)) / (2 * step)
  return result


def assert_gradients_close(actual, expected, rtol=1e-4):
  """The difference is small against the norm of the expected gradient."""
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected)
  assert actual.shape == expected.shape
  scale = max(np.linalg.norm(expected), 1e-6)
  error = np.linalg.norm(actual - expected)
  assert error <= rtol * scale, f"{error} against a norm of {scale}"


def over_devices(loss, embeddings, *columns, devices):
  """Global loss and gradient of a batch-wise loss, mapped over devices.

  Args:
    loss: (own embeddings, own rows, all embeddings, *columns) -> (values,
      weights), where columns are the whole global arrays (ids, ...).
    embeddings: float32 [B, D], B divisible by the number of devices.
    *columns: arrays [B, ...] that every device gets whole.
    devices: list of jax.Device.

  Returns:
    (loss, gradient with respect to the embeddings [B, D]).
  """
  mesh = parallel.make_mesh(devices)
  spec = jax.sharding.PartitionSpec()
  num_rows = len(embeddings)

  def step(embeddings, columns):
    rows = parallel.own_rows(num_rows)

    def total(embeddings):
      own = embeddings[rows]
      gathered = lax.all_gather(own, parallel.AXIS, tiled=True)
      values, weights = loss(own, rows, gathered, *columns)
      weight = lax.psum(lax.stop_gradient(jnp.sum(weights)), parallel.AXIS)
      return jnp.sum(values * weights) / jnp.maximum(weight, 1.0)

    value, grads = jax.value_and_grad(total)(embeddings)
    return lax.psum(value, parallel.AXIS), lax.psum(grads, parallel.AXIS)

  mapped = parallel.pmap(
    step, mesh, in_specs=(spec, spec), out_specs=(spec, spec)
  )
  return mapped(jnp.asarray(embeddings), columns)


def mean(terms):
  """The mean of (values, weights), as a caller forms it."""
  return ops.masked_mean(*terms)
