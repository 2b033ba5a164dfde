"""Tests of facesiam_jax.pretrained.state_dict: files, names, shapes."""

import sys
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.pretrained import (
  facenet_pytorch,
  insightface,
  state_dict,
  torchvision,
)
from tests.pretrained.resnet_state import resnet_state


def _write_safetensors(path, arrays):
  safetensors = pytest.importorskip(
    "safetensors.numpy", reason="writes a .safetensors file"
  )
  safetensors.save_file(arrays, path)


def _write_npz(path, arrays):
  np.savez(path, **arrays)


_WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors}


@pytest.mark.parametrize("suffix", list(_WRITERS))
def test_arrays_come_back_by_name(suffix, tmp_path):
  path = tmp_path / f"a{suffix}"
  state = resnet_state()
  _WRITERS[suffix](path, state)
  found = state_dict.read(path)
  assert found.keys() == state.keys()
  for name, array in state.items():
    np.testing.assert_array_equal(found[name], array)
  _WRITERS[suffix](path, {f"module.{k}": v for k, v in state.items()})
  assert state_dict.read(path).keys() == state.keys()


def test_bfloat16_in_safetensors(tmp_path):
  path = tmp_path / "a.safetensors"
  values = np.arange(6, dtype=np.float32)
  _write_safetensors(path, {"a": values.astype(ml_dtypes.bfloat16)})
  found = state_dict.read(path)["a"]
  np.testing.assert_array_equal(found.astype(np.float32), values)


@pytest.mark.parametrize("suffix", list(_WRITERS))
def test_damaged_and_foreign_files(suffix, tmp_path):
  path = tmp_path / f"a{suffix}"
  _WRITERS[suffix](path, resnet_state())
  whole = path.read_bytes()
  flipped = bytearray(whole)
  flipped[2:6] = b"\xff" * 4
  for content in (
    *(whole[: len(whole) // 2], whole[:20], whole[:1], b""),
    *(bytes(flipped), b"hello" * 99),
  ):
    path.write_bytes(content)
    with pytest.raises(errors.UserError) as info:
      state_dict.read(path)
    sentence = str(info.value)
    assert sentence.startswith(f"{path} is damaged, cut short or no {suffix}")
    assert "\n" not in sentence and sentence.endswith(".")


def test_a_flipped_bit_in_a_compressed_array_is_noticed(tmp_path):
  path = tmp_path / "a.npz"
  np.savez_compressed(path, a=np.arange(999.0))
  content = bytearray(path.read_bytes())
  content[300] ^= 8
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match="is damaged"):
    state_dict.read(path)


def test_a_pickle_in_an_npz_is_refused(tmp_path):
  path = tmp_path / "a.npz"
  np.savez(path, a=np.array([{"b": 1}], object))
  with pytest.raises(errors.UserError, match=r"a\.npz .*could run code"):
    state_dict.read(path)
  with path.open("wb") as file:
    np.save(file, np.zeros(3))
  with pytest.raises(errors.UserError, match="is damaged"):
    state_dict.read(path)
  with zipfile.ZipFile(path, "w") as file:
    file.writestr("notes.txt", "hello")
  with pytest.raises(errors.UserError, match="damaged"):
    state_dict.read(path)


def test_files_that_are_none(tmp_path):
  for path, words in (
    (tmp_path / "none.npz", "does not exist"),
    (tmp_path, "is a folder"),
  ):
    with pytest.raises(errors.UserError, match=words):
      state_dict.read(path)
  (tmp_path / "a.onnx").write_bytes(b"x")
  with pytest.raises(errors.UserError, match=r"none of \.safetensors, \.pt"):
    state_dict.read(tmp_path / "a.onnx")
  np.savez(tmp_path / "a.npz")
  with pytest.raises(errors.UserError, match="holds no arrays by name"):
    state_dict.read(tmp_path / "a.npz")


@pytest.mark.parametrize(
  "suffix, package", [(".pt", "torch"), (".safetensors", "safetensors")]
)
def test_a_missing_package_is_named(suffix, package, tmp_path, monkeypatch):
  path = tmp_path / f"a{suffix}"
  path.write_bytes(b"x")
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(errors.UserError, match="pip install") as info:
    state_dict.read(path)
  assert f"the package {package}" in str(info.value)


def _read(tmp_path, state, **options):
  np.savez(tmp_path / "a.npz", **state)
  return torchvision.read(tmp_path / "a.npz", **options)


def test_layouts_and_names(tmp_path):
  state = resnet_state()
  source, variables = _read(tmp_path, state)
  assert source.args == {
    "dim": 6, "width": 4, "bottleneck": False, "stage_sizes": [1, 1, 1, 1],
  }  # fmt: skip
  params, stats = variables["params"], variables["batch_stats"]
  np.testing.assert_array_equal(
    params["layer2_0"]["downsample_0"]["kernel"],
    state["layer2.0.downsample.0.weight"].transpose(2, 3, 1, 0),
  )
  np.testing.assert_array_equal(
    params["fc"]["kernel"], state["fc.weight"].transpose()
  )
  np.testing.assert_array_equal(
    stats["layer4_0"]["bn2"]["var"], state["layer4.0.bn2.running_var"]
  )
  assert all(leaf.flags.c_contiguous for leaf in jax.tree.leaves(variables))
  used = sum(leaf.size for leaf in jax.tree.leaves(variables))
  assert used == sum(v.size for v in state.values() if v.ndim)


def test_wrong_names_and_shapes_are_named(tmp_path):
  good = resnet_state()
  state = {k: v for k, v in good.items() if not k.startswith("layer3")}
  state["conv1.weight"] = good["conv1.weight"][:, :1]
  state["head.weight"] = np.zeros((2, 2), np.float32)
  with pytest.raises(errors.UserError) as info:
    _read(tmp_path, state, encoder="resnet18")
  sentence = str(info.value)
  assert sentence.startswith(f"{tmp_path / 'a.npz'} does not fit the encoder")
  assert "conv1.weight is [4, 1, 7, 7] in the file and [64, 3," in sentence
  assert sentence.count(";") == 5 and "more. Name" in sentence
  state = dict(good)
  del state["layer1.0.bn1.running_var"]
  state["extra.weight"] = np.zeros(2, np.float32)
  state["fc.bias"] = np.zeros(5, np.float32)
  with pytest.raises(errors.UserError) as info:
    _read(tmp_path, state)
  sentence = str(info.value)
  assert "fc.bias is [5] in the file and [6] in the encoder" in sentence
  assert "layer1.0.bn1.running_var is missing" in sentence
  assert "extra.weight is not in the encoder" in sentence
  assert "more" not in sentence and "\n" not in sentence


@pytest.mark.parametrize(
  "value, words",
  [
    (np.full(6, np.nan, np.float32), "fc.bias has numbers that are not finite"),
    (np.zeros(6, np.int32), "fc.bias is int32, no float"),
    (np.full(6, 1e300), "fc.bias has numbers that are not finite"),
  ],
)
def test_numbers_that_are_no_weights(value, words, tmp_path):
  with pytest.raises(errors.UserError, match=words):
    _read(tmp_path, {**resnet_state(), "fc.bias": value})


def test_weights_of_another_family_name_five_mismatches(tmp_path):
  np.savez(tmp_path / "a.npz", **resnet_state())
  for module in (insightface, facenet_pytorch):
    with pytest.raises(errors.UserError, match="does not fit") as info:
      module.read(tmp_path / "a.npz")
    assert str(info.value).count(";") == 5


def test_encoders_of_another_source_are_refused(tmp_path):
  np.savez(tmp_path / "a.npz", **resnet_state())
  for module, name, choice in (
    (torchvision, "iresnet50", "resnet18"),
    (insightface, "resnet50", "iresnet18"),
    (facenet_pytorch, "resnet50", "inception_resnet_v1"),
  ):
    with pytest.raises(errors.UserError, match=f"--encoder={name}") as info:
      module.read(tmp_path / "a.npz", encoder=name)
    assert choice in str(info.value)


def test_the_flattened_map_is_reordered(tmp_path):
  """A dense layer after [C, H, W] flattened reads ours, [H, W, C], alike."""
  channels, height, width, dim = 3, 2, 4, 5
  rng = np.random.default_rng(0)
  weight = rng.normal(size=(dim, channels * height * width))
  image = rng.normal(size=(channels, height, width))
  kernel = state_dict.flax_layout("kernel", weight, (height, width))
  np.testing.assert_allclose(
    image.transpose(1, 2, 0).ravel() @ kernel, weight @ image.ravel()
  )
