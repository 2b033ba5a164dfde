"""An encoder that has collapsed, for run_test.py."""

import jax.numpy as jnp
from flax import linen as nn


class Constant(nn.Module):
  """Embeds every face as the same vector, up to a millionth."""

  @nn.compact
  def __call__(self, images, *, train=False, rows=None):
    del train, rows
    pixels = images.reshape(len(images), -1)
    return 1.0 + 1e-6 * nn.Dense(4)(jnp.tanh(pixels))
