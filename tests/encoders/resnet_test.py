"""Tests of ResNet: torchvision's counts and shapes, values of tiny ones."""

import jax
import jax.numpy as jnp
import pytest

from facesiam_jax import encoders
from facesiam_jax.encoders import resnet
from tests import encoder_checks

# num_params of torchvision's weights, with their layer of 1000 classes.
PUBLISHED = {
  "resnet18": 11_689_512,
  "resnet34": 21_797_672,
  "resnet50": 25_557_032,
  "resnet101": 44_549_160,
}
TINY = resnet.ResNet((1, 2), bottleneck=True, width=4, dim=5)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_as_published(name):
  whole = encoder_checks.shapes(encoders.create(name, dim=1000), 64)
  assert encoder_checks.count(whole) == PUBLISHED[name]
  own = encoder_checks.shapes(encoders.create(name), 64)
  wide = 512 if name in ("resnet18", "resnet34") else 2048
  dropped = (wide + 1) * (1000 - 256)
  assert encoder_checks.count(own) == PUBLISHED[name] - dropped


def test_layers_of_resnet50():
  found = encoder_checks.shapes(encoders.create("resnet50"), 64)
  expected = {"conv1/kernel": (7, 7, 3, 64), "fc/kernel": (2048, 256)}
  expected |= {"bn1/scale": (64,), "fc/bias": (256,)}
  wide = 64
  for stage, blocks in enumerate((3, 4, 6, 3), start=1):
    inner = 32 * 2**stage
    for number in range(blocks):
      name = f"layer{stage}_{number}"
      if number == 0:
        down = (1, 1, wide, 4 * inner)
        expected[f"{name}/downsample_0/kernel"] = down
        expected[f"{name}/downsample_1/scale"] = (4 * inner,)
      expected[f"{name}/conv1/kernel"] = (1, 1, wide, inner)
      expected[f"{name}/conv2/kernel"] = (3, 3, inner, inner)
      expected[f"{name}/conv3/kernel"] = (1, 1, inner, 4 * inner)
      wide = 4 * inner
      for norm, size in (("bn1", inner), ("bn2", inner), ("bn3", wide)):
        expected[f"{name}/{norm}/scale"] = (size,)
  kept = {
    name.removeprefix("params/"): shape
    for name, shape in found.items()
    if name.startswith("params/") and not name.endswith(("bn1/bias", "/bias"))
  }
  kept["fc/bias"] = found["params/fc/bias"]
  assert kept == expected


def test_layers_of_resnet18():
  found = encoder_checks.shapes(encoders.create("resnet18"), 64)
  assert found["params/layer1_1/conv2/kernel"] == (3, 3, 64, 64)
  assert found["params/layer4_0/conv1/kernel"] == (3, 3, 256, 512)
  assert found["params/layer2_0/downsample_0/kernel"] == (1, 1, 64, 128)
  # The first stage keeps the size and the channels, so it has no shortcut.
  assert "params/layer1_0/downsample_0/kernel" not in found
  assert found["batch_stats/layer4_1/bn2/var"] == (512,)


def test_strides_are_torchvisions():
  """v1.5: the 3x3 of a bottleneck strides, which the image of ones shows."""
  module = resnet.ResNet((1, 1), bottleneck=True, width=4, dim=3)
  images = jnp.zeros((1, 40, 24, 3))
  _, state = jax.eval_shape(
    lambda: module.init_with_output(
      jax.random.key(0), images, capture_intermediates=True
    )
  )
  seen = state["intermediates"]
  shape = lambda *path: _at(seen, path).shape[1:]
  assert shape("conv1") == (20, 12, 4)
  assert shape("layer1_0", "conv2") == (10, 6, 4)
  assert shape("layer2_0", "conv1") == (10, 6, 8)
  assert shape("layer2_0", "conv2") == (5, 3, 8)
  assert shape("layer2_0", "downsample_0") == (5, 3, 32)


def _at(tree, path):
  for name in path:
    tree = tree[name]
  return tree["__call__"][0]


@pytest.mark.parametrize("bottleneck", [True, False])
def test_embeddings(bottleneck):
  encoder_checks.check_embeddings(
    TINY.clone(bottleneck=bottleneck), 16, half=0.05
  )


@pytest.mark.slow
@pytest.mark.parametrize("bottleneck", [True, False])
def test_gradient_remat_and_devices(bottleneck, devices):
  module = TINY.clone(bottleneck=bottleneck, stage_sizes=(1, 1))
  encoder_checks.check_training(
    module, 16, devices=devices if bottleneck else None
  )


def test_refuses():
  with pytest.raises(ValueError, match="32 x 32 pixels or more"):
    encoder_checks.shapes(encoders.create("resnet18"), 31)
  with pytest.raises(ValueError, match="float32, bfloat16, float16"):
    encoder_checks.shapes(TINY.clone(dtype="float8"), 32)


def test_grey_faces_and_any_size():
  images = jax.ShapeDtypeStruct((2, 24, 17, 1), jnp.float32)
  out, _ = jax.eval_shape(TINY.init_with_output, jax.random.key(0), images)
  assert out.shape == (2, 5) and out.dtype == jnp.float32
