"""Tests of IResNet: insightface's counts and shapes, values of tiny ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facesiam_jax import encoders
from facesiam_jax.encoders import iresnet
from tests import encoder_checks

# Parameters of arcface_torch's networks for 112x112, as commonly tabulated
# (24.03, 34.14, 43.59 and 65.16 M).
PUBLISHED = {
  "iresnet18": 24_025_600,
  "iresnet34": 34_139_328,
  "iresnet50": 43_590_848,
  "iresnet100": 65_156_160,
}
STAGES = {
  "iresnet18": (2, 2, 2, 2),
  "iresnet34": (3, 4, 6, 3),
  "iresnet50": (3, 4, 14, 3),
  "iresnet100": (3, 13, 30, 3),
}
TINY = iresnet.IResNet((1, 2), width=4, size=12, dim=5, dropout=0.2)


def _counted(stages):
  """The layout's own arithmetic: weights, two numbers a norm, one a slope."""
  total, wide = 9 * 3 * 64 + 2 * 64 + 64, 64
  for stage, blocks in enumerate(stages):
    out = 64 * 2**stage
    total += wide * out + 2 * out
    for _ in range(blocks):
      total += 2 * wide + 9 * wide * out + 3 * out + 9 * out * out + 2 * out
      wide = out
  return total + 2 * 512 + (512 * 7 * 7 + 1) * 512 + 2 * 512


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name):
  found = encoder_checks.shapes(encoders.create(name), 112)
  # insightface keeps the last normalisation's scale, fixed at 1.
  assert encoder_checks.count(found) + 512 == PUBLISHED[name]
  assert _counted(STAGES[name]) == PUBLISHED[name]


def test_layers_of_iresnet50():
  found = encoder_checks.shapes(encoders.create("iresnet50"), 112)
  expected = {
    "conv1/kernel": (3, 3, 3, 64),
    "bn1/scale": (64,),
    "prelu/slope": (64,),
    "bn2/scale": (512,),
    "fc/kernel": (7 * 7 * 512, 512),
  }
  wide = 64
  for stage, blocks in enumerate((3, 4, 14, 3), start=1):
    out = 32 * 2**stage
    for number in range(blocks):
      name = f"layer{stage}_{number}"
      if number == 0:
        expected[f"{name}/downsample_0/kernel"] = (1, 1, wide, out)
        expected[f"{name}/downsample_1/scale"] = (out,)
      expected[f"{name}/bn1/scale"] = (wide,)
      expected[f"{name}/conv1/kernel"] = (3, 3, wide, out)
      expected[f"{name}/bn2/scale"] = (out,)
      expected[f"{name}/prelu/slope"] = (out,)
      expected[f"{name}/conv2/kernel"] = (3, 3, out, out)
      expected[f"{name}/bn3/scale"] = (out,)
      wide = out
  kept = {
    name.removeprefix("params/"): shape
    for name, shape in found.items()
    if name.startswith("params/") and not name.endswith("/bias")
  }
  assert kept == expected
  assert found["params/features/bias"] == (512,)


def test_only_the_second_convolution_strides():
  module = TINY.clone(dropout=0.0)
  _, state = jax.eval_shape(
    lambda: module.init_with_output(
      jax.random.key(0), jnp.zeros((1, 12, 12, 3)), capture_intermediates=True
    )
  )
  block = state["intermediates"]["layer1_0"]
  assert block["conv1"]["__call__"][0].shape == (1, 12, 12, 4)
  assert block["conv2"]["__call__"][0].shape == (1, 6, 6, 4)


def test_embeddings():
  encoder_checks.check_embeddings(TINY, 12, half=0.03)


@pytest.mark.soak
def test_gradient_remat_dropout_and_devices(devices):
  encoder_checks.check_training(TINY, 12, devices=devices)


def test_dropout_needs_rows_and_drops():
  variables, images, _ = encoder_checks.setting(TINY, 12, batch=4)

  def run(key, **arguments):
    return TINY.apply(
      variables,
      images,
      train=True,
      rngs={"dropout": jax.random.key(key)},
      mutable=["batch_stats"],
      **arguments,
    )[0]

  with pytest.raises(ValueError, match="rows"):
    run(0)
  run = jax.jit(run)
  one, other = (run(key, rows=jnp.arange(4)) for key in (0, 1))
  assert not np.allclose(one, other, atol=1e-3)


def test_refuses_other_sizes():
  with pytest.raises(ValueError, match="112 x 112 pixels"):
    encoder_checks.shapes(encoders.create("iresnet18"), 96)
