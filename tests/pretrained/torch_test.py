"""Imported networks of PyTorch against the originals, number by number.

Weights and running statistics are random; only the arithmetic counts.
"""

import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with PyTorch's networks")

import jax  # noqa: E402

from facesiam_jax import encoders, errors, preprocess  # noqa: E402
from facesiam_jax.pretrained import (  # noqa: E402
  facenet_pytorch,
  insightface,
  torchvision,
)
from tests.pretrained import torch_networks as networks  # noqa: E402

_TINY_STAGES = (2, 1, 1, 1)


def _faces(size, count=8):
  rng = np.random.default_rng(0)
  # Patches as well as noise: the values of neighbours agree in a face.
  coarse = rng.integers(0, 200, (count, 5, 5, 3))
  rows = np.arange(size) * 5 // size
  faces = coarse[:, rows][:, :, rows]
  return (faces + rng.integers(0, 56, faces.shape)).astype(np.uint8)


def _compare(network, module, path, *, size, encoder=None, dim, name):
  """The imported network embeds 8 faces as the original does, to 1e-4."""
  torch.save(networks.randomize(network).state_dict(), path)
  source, variables = module.read(path, encoder=encoder)
  assert source.encoder == name
  images = preprocess.to_float(_faces(size))
  images = np.array(preprocess.standardize(images, **source.standardize))
  encoder = encoders.create(source.encoder, **source.args)
  found = np.asarray(jax.jit(encoder.apply)(variables, images))
  with torch.no_grad():
    expected = network(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
  assert found.shape == expected.shape == (8, dim)
  scale = max(1.0, np.abs(expected).max())
  assert np.abs(found - expected).max() <= 1e-4 * scale
  # The faces differ, so that equal numbers mean something.
  assert np.abs(expected[0] - expected[1]).max() > 1e-2
  return source


@pytest.mark.parametrize("deep", [False, True])
def test_tiny_resnets(deep, tmp_path):
  network = networks.ResNet(_TINY_STAGES, deep, width=8, dim=24)
  source = _compare(
    network, torchvision, tmp_path / "a.pth", size=64, dim=24, name="resnet50"
  )
  assert source.args == {
    "dim": 24, "width": 8, "bottleneck": deep, "stage_sizes": [2, 1, 1, 1],
  }  # fmt: skip


@pytest.mark.slow
def test_resnet18(tmp_path):
  network = networks.ResNet(dim=256)
  source = _compare(
    network, torchvision, tmp_path / "a.pth", size=112, dim=256, name="resnet18"
  )
  assert source.args == {"dim": 256, "width": 64}


def test_tiny_iresnet(tmp_path):
  network = networks.IResNet(_TINY_STAGES, width=8, size=48, dim=20)
  source = _compare(
    network, insightface, tmp_path / "a.pt", size=48, dim=20, name="iresnet50"
  )
  assert source.size == 48 and source.args["stage_sizes"] == [2, 1, 1, 1]


@pytest.mark.slow
def test_iresnet18(tmp_path):
  source = _compare(
    networks.IResNet(),
    insightface,
    tmp_path / "a.pt",
    size=112,
    dim=512,
    encoder="iresnet18",
    name="iresnet18",
  )
  assert source.args == {"dim": 512, "size": 112}


@pytest.mark.parametrize("stages", [(1, 2, 1, 1), (2, 1, 2, 1)])
def test_tiny_mobilefacenet(stages, tmp_path):
  network = networks.MobileFaceNet(stages, width=8, scale=2, size=48, dim=20)
  source = _compare(
    network,
    insightface,
    tmp_path / "a.pt",
    size=48,
    dim=20,
    name="mobilefacenet",
  )
  assert source.args == {
    "dim": 20, "size": 48, "width": 8, "scale": 2, "stage_sizes": list(stages),
  }  # fmt: skip


@pytest.mark.slow
def test_mobilefacenet(tmp_path):
  network = networks.MobileFaceNet()
  _compare(
    network,
    insightface,
    tmp_path / "a.pt",
    size=112,
    dim=512,
    encoder="mobilefacenet",
    name="mobilefacenet",
  )


@pytest.mark.slow
def test_tiny_inception_resnet(tmp_path):
  network = networks.InceptionResNetV1((1, 2, 1), width=4, dim=16, classes=9)
  source = _compare(
    network,
    facenet_pytorch,
    tmp_path / "a.pt",
    size=80,
    dim=16,
    name="inception_resnet_v1",
  )
  assert source.args == {"width": 4, "dim": 16, "stage_sizes": (1, 2, 1)}


@pytest.mark.slow
def test_inception_resnet(tmp_path):
  network = networks.InceptionResNetV1(classes=10)
  count = sum(p.numel() for p in network.parameters())
  assert count == 23_482_624 + 513 * 10
  source = _compare(
    network,
    facenet_pytorch,
    tmp_path / "a.pt",
    size=160,
    dim=512,
    name="inception_resnet_v1",
  )
  assert source.args == {}


@pytest.mark.parametrize(
  "wrap",
  [
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {f"module.{name}": value for name, value in state.items()},
    lambda state: {k: v.to(torch.bfloat16).float() for k, v in state.items()},
  ],
  ids=["nested", "module", "rounded"],
)
def test_wrapped_state_dicts(wrap, tmp_path):
  network = networks.randomize(networks.ResNet(_TINY_STAGES, width=8, dim=24))
  state = network.state_dict()
  torch.save(wrap(state), tmp_path / "a.pt")
  _, variables = torchvision.read(tmp_path / "a.pt")
  kernel = variables["params"]["layer1_1"]["conv2"]["kernel"]
  expected = state["layer1.1.conv2.weight"].numpy().transpose(2, 3, 1, 0)
  np.testing.assert_allclose(kernel, expected, rtol=1e-2)


def test_half_precision_is_read_as_float32(tmp_path):
  network = networks.randomize(networks.ResNet(_TINY_STAGES, width=8, dim=24))
  state = {k: v.to(torch.bfloat16) for k, v in network.state_dict().items()}
  torch.save(state, tmp_path / "a.pt")
  _, variables = torchvision.read(tmp_path / "a.pt")
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
    np.dtype(np.float32)
  }


class _Runs:
  """Runs a command when unpickled."""

  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"state_dict": x}])
def test_a_pickle_that_would_run_code_is_refused(wrap, tmp_path):
  path, marker = tmp_path / "a.pt", tmp_path / "ran"
  torch.save(wrap({"conv1.weight": _Runs(marker)}), path)
  with pytest.raises(errors.UserError, match=r"a\.pt .*could run code") as info:
    torchvision.read(path)
  assert not marker.exists() and "\n" not in str(info.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".npz"])
def test_a_bare_pickle_is_refused(suffix, tmp_path):
  path, marker = tmp_path / f"a{suffix}", tmp_path / "ran"
  path.write_bytes(pickle.dumps({"conv1.weight": _Runs(marker)}))
  with pytest.raises(errors.UserError) as info:
    torchvision.read(path)
  assert not marker.exists() and "\n" not in str(info.value)


def test_damaged_files_are_refused(tmp_path):
  path = tmp_path / "a.pt"
  network = networks.randomize(networks.ResNet(_TINY_STAGES, width=8, dim=24))
  torch.save(network.state_dict(), path)
  whole = path.read_bytes()
  for content in (whole[: len(whole) // 2], whole[:100], b"", b"hello" * 99):
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match=r"a\.pt is damaged") as info:
      torchvision.read(path)
    assert "\n" not in str(info.value)
  torch.save(network.state_dict()["conv1.weight"], path)
  with pytest.raises(errors.UserError, match="holds no arrays by name"):
    torchvision.read(path)
