"""Tests of counting parameters and multiply-adds by tracing."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax import lax

from facesiam_jax import encoders
from facesiam_jax.encoders import blocks, cost, layers

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _shape(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _grouped(groups):
  return lambda x, k: lax.conv_general_dilated(
    x,
    k,
    (2, 1),
    "VALID",
    dimension_numbers=_LAYOUT,
    feature_group_count=groups,
  )


@pytest.mark.parametrize(
  ("function", "shapes", "expected"),
  [
    (lambda a, b: a @ b, [(3, 5), (5, 7)], 3 * 5 * 7),
    (
      lambda a, b: jnp.einsum("bij,bkj->bik", a, b),
      [(2, 3, 5), (2, 4, 5)],
      2 * 3 * 4 * 5,
    ),
    (_grouped(1), [(2, 7, 6, 4), (3, 3, 4, 5)], 2 * 3 * 4 * 5 * 9 * 4),
    (_grouped(2), [(2, 7, 6, 4), (3, 3, 2, 6)], 2 * 3 * 4 * 6 * 9 * 2),
    (
      lambda x, k: layers.conv(x, k, strides=2),
      [(1, 8, 8, 3), (3, 3, 3, 4)],
      4 * 4 * 4 * 27,
    ),
    # On CPU shifted multiplies, elsewhere a convolution: counted once.
    (
      lambda x, k: blocks.depthwise_conv(x, k, padding=1),
      [(2, 5, 6, 4), (3, 3, 1, 4)],
      2 * 5 * 6 * 4 * 9,
    ),
    (lambda a, b: a * b + a, [(3, 5), (3, 5)], 0),
  ],
)
def test_by_hand(function, shapes, expected):
  assert cost.multiply_adds(function, *(_shape(*s) for s in shapes)) == expected


@pytest.mark.parametrize(
  "wrap",
  [
    jax.jit,
    jax.checkpoint,
    jax.vmap,
    lambda f: lambda x: lax.cond(x.sum() > 0, f, lambda x: x, x),
    lambda f: lambda x: lax.while_loop(lambda x: x.sum() > 0, f, x),
  ],
)
def test_inside_other_functions(wrap):
  square = lambda x: jnp.sin(x @ x)
  assert cost.multiply_adds(wrap(square), _shape(2, 3, 3)) == 2 * 27


def test_scan_counts_every_round():
  run = lambda x: lax.scan(lambda c, _: (c @ c, None), x, None, length=5)
  assert cost.multiply_adds(run, _shape(3, 3)) == 5 * 27


def test_gradients_cost_three_times_the_network_or_more():
  loss = lambda x, k: jnp.sum(layers.conv(x, k) ** 2)
  images, kernel = _shape(8, 8, 8, 3), _shape(3, 3, 3, 4)
  forward = cost.multiply_adds(loss, images, kernel)
  both = cost.multiply_adds(jax.grad(loss, (0, 1)), images, kernel)
  # The gradients read padding too.
  assert 2.5 * forward < both < 4.5 * forward


@pytest.mark.parametrize(
  ("name", "giga"), [("resnet18", 1.81), ("resnet50", 4.09)]
)
def test_resnets_cost_what_torchvision_tabulates(name, giga):
  found = cost.measure(encoders.create(name, dim=1000), (224, 224, 3))
  assert round(found.multiply_adds / 1e9, 2) == giga


def test_remat_does_not_change_the_cost():
  plain, again = (
    cost.measure(encoders.create("resnet18", remat=remat), (112, 112, 3))
    for remat in (False, True)
  )
  assert plain == again


class _OwnEncoder(nn.Module):
  @nn.compact
  def __call__(self, images, *, train=False, rows=None):
    norm = nn.BatchNorm(use_running_average=not train)
    return nn.Dense(7)(norm(images).reshape(len(images), -1))


def test_measure_an_encoder():
  found = cost.measure(_OwnEncoder(), (4, 5, 2))
  # Running statistics are no parameters: scale and bias of 2 channels are.
  assert found == cost.Cost(7, 2 * 2 + 40 * 7 + 7, 40 * 7)
  with pytest.raises(ValueError, match="105 x 105"):
    cost.measure(encoders.create("koch2015"), (64, 64, 1))
