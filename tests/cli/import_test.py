"""Tests of `facesiam import`: a file of others in, a whole bundle out."""

import importlib.util
import json

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.cli import main
from facesiam_jax.pretrained import dlib_resnet
from tests.pretrained.resnet_state import resnet_state


def _import(tmp_path, *argv):
  command = ["import", f"--bundle={tmp_path / 'bundle'}", *argv]
  return main.main([str(word) for word in command])


def _error(tmp_path, capsys, *argv):
  assert _import(tmp_path, *argv) == 1
  out, err = capsys.readouterr()
  assert out == "" and err.count("\n") == 1 and "Error:" not in err
  assert not (tmp_path / "bundle").exists()
  return err


def test_a_whole_bundle(tmp_path, capsys):
  path = tmp_path / "a.npz"
  np.savez(path, **resnet_state())
  assert _import(tmp_path, "--from=torchvision", f"--weights={path}") == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith("encoder") and "6 numbers" in lines[0]
  assert "224 x 224 RGB, framed as unaligned" in lines[1]
  assert "none published" in lines[2] and lines[-1].startswith("uncalibrated")
  bundle = bundle_lib.load(tmp_path / "bundle")
  assert not bundle.calibrated and bundle.threshold == np.inf
  assert bundle.dim == 6 and bundle.channels == 3
  faces = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
  embeddings = bundle.embed(faces)
  np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
  spec = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
  assert spec["source"]["licence"].startswith("BSD") and spec["version"] == 2
  assert spec["standardize"]["mean"] == [0.485, 0.456, 0.406]


def test_wrong_files_and_flags(tmp_path, capsys):
  path = tmp_path / "a.npz"
  np.savez(path, **resnet_state())
  weights = f"--weights={path}"
  for argv, words in (
    (["--from=torchvision"], "--from=torchvision needs --weights"),
    (["--from=insightface", weights], "does not fit the encoder iresnet50"),
    (["--from=torchvision", weights, "--encoder=resnet34"], "does not fit"),
    (["--from=torchvision", weights, "--encoder=vit"], "--encoder=vit is not"),
    (["--from=dlib", "--encoder=resnet18"], "dlib_resnet29"),
    (["--from=dlib", weights], "a.npz"),
    (["--from=facenet_pytorch", f"--weights={path}x"], "does not exist"),
  ):
    assert words in _error(tmp_path, capsys, *argv), argv


def test_a_failed_import_leaves_the_old_bundle(tmp_path, capsys, monkeypatch):
  path = tmp_path / "a.npz"
  argv = ["--from=torchvision", f"--weights={path}"]
  np.savez(path, **resnet_state())
  assert _import(tmp_path, *argv) == 0
  before = bundle_lib.load(tmp_path / "bundle").fingerprint
  np.savez(path, **resnet_state(seed=1))
  capsys.readouterr()

  def full(*args, **kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  assert _import(tmp_path, *argv) == 1
  assert "no space left" in capsys.readouterr().err
  monkeypatch.undo()
  assert bundle_lib.load(tmp_path / "bundle").fingerprint == before
  assert len(list((tmp_path / "bundle").iterdir())) == 2


def test_dlib_without_its_package(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(dlib_resnet, "_PACKAGE", "no_such_package")
  error = _error(tmp_path, capsys, "--from=dlib")
  assert "no_such_package" in error and "--weights" in error


@pytest.mark.slow
def test_dlib_from_its_package(tmp_path, capsys):
  # Found, not imported: it wants pkg_resources, which may be missing.
  if importlib.util.find_spec("face_recognition_models") is None:
    pytest.skip("face_recognition_models, with dlib's weights, is not there")
  assert _import(tmp_path, "--from=dlib") == 0
  lines = capsys.readouterr().out.splitlines()
  assert "0.6 (published" in lines[2] and "CC0" in lines[4]
  assert lines[-1].startswith("uncalibrated: published threshold")
  bundle = bundle_lib.load(tmp_path / "bundle")
  assert bundle.metric == "euclidean" and bundle.published_distance == 0.6
  assert bundle.input_size == (150, 150) and bundle.dim == 128
  face = np.full((150, 150, 3), (200, 150, 120), np.uint8)
  for name in ("a.png", "b.png"):
    PIL.Image.fromarray(face).save(tmp_path / name)
  argv = ["verify", f"--bundle={tmp_path / 'bundle'}", "--cropped"]
  argv += [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
  assert main.main(argv) == 0
  out = capsys.readouterr().out
  assert out.startswith("same person\ndistance     0.0000 (euclidean)")
  assert "threshold    0.6000" in out and "probability" not in out
