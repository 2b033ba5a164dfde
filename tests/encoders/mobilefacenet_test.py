"""Tests of MobileFaceNet: the paper's counts, insightface's shapes, values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from facesiam_jax import encoders
from facesiam_jax.encoders import cost, mobilefacenet
from tests import encoder_checks

TINY = mobilefacenet.MobileFaceNet((1, 1, 2, 1), width=2, size=32, dim=5)


def test_counts_of_the_paper():
  """Chen et al. 2018: 221 million multiply-adds, 0.99 million parameters."""
  paper = encoders.create("mobilefacenet", scale=1, dim=128)
  found = cost.measure(paper, (112, 112, 3))
  assert round(found.multiply_adds / 1e6) == 221
  shapes = encoder_checks.shapes(paper, 112)
  # Deployed, a normalisation is folded into the convolution before it: its
  # scale is no parameter.
  scales = {n: s for n, s in shapes.items() if n.endswith("/scale")}
  deployed = found.parameters - encoder_checks.count(scales)
  assert round(deployed / 1e6, 2) == 0.99
  # With 512 numbers, as most implementations of the paper's widths have it.
  wide = encoders.create("mobilefacenet", scale=1)
  assert cost.measure(wide, (112, 112, 3)).parameters == 1_200_512


def _counted(scale, stages, dim):
  """insightface's layout by arithmetic: weights, norms, slopes."""
  norm, norm_and_slope = 2, 3
  wide = 64 * scale
  total = 9 * 3 * wide + norm_and_slope * wide
  total += 9 * scale * wide + norm_and_slope * wide
  before = wide
  plan = ((wide, 128, 128), (2 * wide, 256, 256), (2 * wide, 512, 256))
  for count, (out, halving, inner) in zip(stages[1:], plan, strict=True):
    for number in range(count + 1):
      mid, enters = (inner, out) if number else (halving, before)
      total += enters * mid + 9 * mid + 2 * norm_and_slope * mid
      total += mid * out + norm * out
    before = out
  total += before * 512 + norm_and_slope * 512
  return total + 49 * 512 + norm * 512 + 512 * dim + norm * dim


@pytest.mark.parametrize(("scale", "dim"), [(1, 128), (2, 512)])
def test_parameters_by_arithmetic(scale, dim):
  module = encoders.create("mobilefacenet", scale=scale, dim=dim)
  found = encoder_checks.count(encoder_checks.shapes(module, 112))
  assert found == _counted(scale, (1, 4, 6, 2), dim)


def test_layers_are_insightfaces():
  found = encoder_checks.shapes(encoders.create("mobilefacenet"), 112)
  for name, shape in {
    "layers_0/layers_0/kernel": (3, 3, 3, 128),
    # 64 groups of two channels.
    "layers_1/layers_0/kernel": (3, 3, 2, 128),
    "layers_2/layers_1/layers_0/kernel": (3, 3, 1, 128),
    "layers_3/layers_3/layers_2/layers_1/scale": (128,),
    "layers_4/layers_0/layers_0/kernel": (1, 1, 128, 256),
    "layers_5/layers_5/layers_0/layers_2/slope": (256,),
    "layers_6/layers_2/layers_0/kernel": (1, 1, 512, 256),
    "layers_7/layers_1/layers_2/layers_0/kernel": (1, 1, 256, 256),
    "conv_sep/layers_0/kernel": (1, 1, 256, 512),
    "features/layers_0/layers_0/kernel": (7, 7, 1, 512),
    "features/layers_2/kernel": (512, 512),
    "features/layers_3/scale": (512,),
  }.items():
    assert found[f"params/{name}"] == shape
  assert "params/layers_2/layers_2/layers_2/slope" not in found
  assert "params/features/layers_2/bias" not in found


def test_large_variant_begins_with_blocks():
  module = TINY.clone(stage_sizes=(2, 1, 1, 1), scale=4)
  found = encoder_checks.shapes(module, 32)
  assert found["params/layers_1/layers_1/layers_0/layers_0/kernel"] == (
    (1, 1, 8, 4)
  )


@pytest.mark.parametrize("size", [1, 2, 3])
def test_grouped_convolution_equals_xlas(size):
  groups = 3
  channels = groups * size
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.normal(size=(2, 5, 6, channels)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(3, 3, size, channels)), jnp.float32)
  module = mobilefacenet._GroupedConv(groups)
  actual = jax.jit(module.apply)({"params": {"kernel": kernel}}, images)
  expected = lax.conv_general_dilated(
    images,
    kernel,
    (1, 1),
    "SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=groups,
  )
  np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_embeddings():
  encoder_checks.check_embeddings(TINY, 32, half=0.08)


@pytest.mark.soak
def test_gradient_remat_and_devices(devices):
  module = TINY.clone(stage_sizes=(1, 0, 1, 0), size=16)
  encoder_checks.check_training(module, 16, devices=devices)


def test_refuses_other_sizes():
  with pytest.raises(ValueError, match="112 x 112 pixels"):
    encoder_checks.shapes(encoders.create("mobilefacenet"), 64)
