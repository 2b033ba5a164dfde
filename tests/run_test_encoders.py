"""Encoders for tests of runs: one has collapsed, one has statistics."""

import jax.numpy as jnp
from flax import linen as nn


class Constant(nn.Module):
  """Embeds every face as the same vector, up to a millionth."""

  @nn.compact
  def __call__(self, images, *, train=False, rows=None):
    del train, rows
    pixels = images.reshape(len(images), -1)
    return 1.0 + 1e-6 * nn.Dense(4)(jnp.tanh(pixels))


class Normed(nn.Module):
  """Two dense layers with a batch normalisation between them."""

  dim: int = 4
  axis_name: str | None = None

  @nn.compact
  def __call__(self, images, *, train=False, rows=None):
    del rows
    x = nn.Dense(6)(images.reshape(len(images), -1))
    x = nn.BatchNorm(not train, momentum=0.5, axis_name=self.axis_name)(x)
    return nn.Dense(self.dim)(jnp.tanh(x))
