"""Tests of facesiam_jax.pretrained.dlib_resnet, with and without dlib.

The comparison with dlib needs dlib-bin, face_recognition_models and real
photos; where one of them is missing it is skipped and says so.
"""

import functools
import io
import pathlib
import sys
import tarfile
import types

import jax
import numpy as np
import pytest
from PIL import Image

from facesiam_jax import errors, preprocess
from facesiam_jax.encoders.dlib_resnet import DlibResNet
from facesiam_jax.pretrained import dlib_resnet
from tests.pretrained import dlib_writer as writer

TINY = {"widths": (2, 3), "depths": (2, 1), "dim": 4}
DATA = pathlib.Path(__file__).parents[3] / "shared" / "data"


def _write(tmp_path, layers, **settings):
  path = tmp_path / "tiny.dat"
  path.write_bytes(writer.serialize(layers, **settings).data)
  return path


def _layers(**changes):
  rng = np.random.default_rng(0)
  return writer.face_network(rng, **{**TINY, **changes})


def _read(path):
  return dlib_resnet.read(path, encoder=DlibResNet(**TINY))


@pytest.mark.parametrize("version", [4, 5])
def test_every_parameter_is_where_it_belongs(tmp_path, version):
  layers = _layers(version=version)
  params = _read(_write(tmp_path, layers))["params"]
  module = DlibResNet(**TINY)
  images = jax.ShapeDtypeStruct((1, 40, 40, 3), np.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
  assert jax.tree.structure(params) == jax.tree.structure(shapes)
  jax.tree.map(
    lambda a, b: np.testing.assert_equal(a.shape, b.shape), params, shapes
  )
  flat = [held["params"].ravel() for _, held in layers if "params" in held]
  # filter 1, channel 2, row 3, column 4 of the first convolution.
  place = ((1 * 3 + 2) * 7 + 3) * 7 + 4
  assert params["con"]["kernel"][3, 4, 2, 1] == flat[0][place]
  np.testing.assert_array_equal(params["con"]["bias"], flat[0][-2:])
  np.testing.assert_array_equal(params["affine"]["scale"], flat[1][:2])
  np.testing.assert_array_equal(params["affine"]["bias"], flat[1][2:])
  np.testing.assert_array_equal(
    params["alevel1_1"]["affine2"]["bias"], flat[9][2:]
  )
  np.testing.assert_array_equal(
    params["alevel0_0"]["con1"]["kernel"].transpose(3, 2, 0, 1).ravel(),
    flat[10][:-3],
  )
  np.testing.assert_array_equal(params["fc"]["kernel"].ravel(), flat[-1])


def _changed(kind, name, value, number=0):
  layers = _layers(version=5)
  places = [i for i, layer in enumerate(layers) if layer[0] == kind]
  held = layers[places[number]][1]
  layers[places[number]] = (kind, {**held, name: value})
  return layers


@pytest.mark.parametrize(
  "layers, match",
  [
    (_layers(widths=(2, 4)), r"con_4 with filters \(4, 2, 3, 3\) where"),
    (_layers(depths=(1, 1)), "27 layers where 35 are due; con_4 with filters"),
    (_layers(dim=5), r"weights \(3, 5, 1, 1\) where \(3, 4, 1, 1\) is due"),
    (_changed("con_5", "stride_y", 1), "con_5 with stride_y 1 where 2 is due"),
    (_changed("con_5", "padding_x", 0, 1), "padding_x 0 where 1 is due"),
    (_changed("con_5", "use_bias", False), "con_5 without its bias"),
    (_changed("affine_", "mode", 1), "affine_ with mode 1 where 0 is due"),
    (_changed("max_pool_2", "rows", 2), "max_pool_2 with rows 2 where 3"),
    (
      _changed("affine_", "params", np.zeros((3, 1, 1, 1), np.float32)),
      "affine_ with 3 parameters",
    ),
    (
      _changed("affine_", "params", np.full((4, 1, 1, 1), np.nan, np.float32)),
      "affine_ with parameters that are not finite",
    ),
  ],
)
def test_other_networks_are_refused_by_name(tmp_path, layers, match):
  with pytest.raises(errors.UserError, match=match) as caught:
    _read(_write(tmp_path, layers))
  text = str(caught.value)
  assert "tiny.dat is not dlib's face recognition network: " in text
  assert "(byte " in text and "\n" not in text


def test_five_of_many_differences_are_named(tmp_path):
  layers = _layers(widths=(3, 4))
  with pytest.raises(errors.UserError, match=r" and \d+ more; give") as caught:
    _read(_write(tmp_path, layers))
  assert str(caught.value).count(" is due (byte") == 5


@pytest.mark.parametrize(
  "settings, match",
  [
    ({"size": 112}, "with rows 112 where 150 is due"),
    ({"means": (104.298, 117.001, 122.782)}, "with red 104.298 where 122.782"),
  ],
)
def test_another_preprocessing_is_refused(tmp_path, settings, match):
  path = _write(tmp_path, _layers(), **settings)
  with pytest.raises(errors.UserError, match=match):
    _read(path)


def test_find_without_importing(tmp_path, monkeypatch):
  monkeypatch.setattr(sys, "path", [str(tmp_path)])
  monkeypatch.delitem(sys.modules, "face_recognition_models", raising=False)
  with pytest.raises(errors.UserError, match="pip install face_recognition_mo"):
    dlib_resnet.find()
  package = tmp_path / "face_recognition_models"
  (package / "models").mkdir(parents=True)
  (package / "__init__.py").write_text("raise RuntimeError('imported')")
  with pytest.raises(errors.UserError, match="--weights=FILE"):
    dlib_resnet.find()
  file = package / "models" / "dlib_face_recognition_resnet_model_v1.dat"
  file.write_bytes(b"")
  assert dlib_resnet.find() == file
  # A stub that somebody put in its place has no spec.
  stub = types.ModuleType("face_recognition_models")
  monkeypatch.setitem(sys.modules, "face_recognition_models", stub)
  with pytest.raises(errors.UserError, match="not installed"):
    dlib_resnet.find()


def test_source_is_dlibs_preprocessing():
  source = dlib_resnet.SOURCE
  pixels = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3) * 20
  ours = preprocess.standardize(
    preprocess.to_float(pixels), **source.standardize
  )
  expected = (np.float64(pixels) - [122.782, 117.001, 104.298]) / 256
  np.testing.assert_allclose(ours, expected, atol=1e-6)
  assert (source.size, source.channels) == (150, 3)
  assert (source.metric, source.threshold) == ("euclidean", 0.6)


def _published():
  try:
    return dlib_resnet.find()
  except errors.UserError as error:
    pytest.skip(str(error))


def test_the_published_file_is_all_parameters():
  """5,614,592 numbers, each in one place; the rest of the file is names."""
  path = _published()
  params = dlib_resnet.read(path)["params"]
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == 5_614_592
  assert 0 < path.stat().st_size - 4 * count < 8000


def _photos(dlib, folder):
  """Yields faces in photos as chips, by detector and five landmarks."""
  detect = dlib.get_frontal_face_detector()
  mark = dlib.shape_predictor(
    str(folder / "shape_predictor_5_face_landmarks.dat")
  )
  chip = functools.partial(dlib.get_face_chip, size=150, padding=0.25)
  with tarfile.open(DATA / "photos.tar") as tar:
    for member in tar:
      if not member.isfile():
        continue
      photo = Image.open(io.BytesIO(tar.extractfile(member).read()))
      photo.thumbnail((480, 480))
      image = np.array(photo.convert("RGB"))
      for face in detect(image):
        yield chip(image, mark(image, face))


def _aligned(dlib, folder):
  """Yields the chips of faces that are cropped already, 112 pixels wide."""
  mark = dlib.shape_predictor(
    str(folder / "shape_predictor_5_face_landmarks.dat")
  )
  with tarfile.open(DATA / "celeba_wild112.tar") as tar:
    for member in tar:
      if member.isfile():
        photo = Image.open(io.BytesIO(tar.extractfile(member).read()))
        image = np.array(photo.convert("RGB").resize((224, 224)))
        face = mark(image, dlib.rectangle(30, 40, 194, 204))
        yield dlib.get_face_chip(image, face, size=150, padding=0.25)


def _chips(dlib, folder, count):
  chips = []
  for source in (_photos, _aligned):
    for chip in source(dlib, folder):
      chips.append(chip)
      if len(chips) == count * (1 + (source is _aligned)) // 2:
        break
  return np.stack(chips)


@pytest.mark.slow
def test_embeddings_equal_dlibs_on_real_chips():
  dlib = pytest.importorskip("dlib", reason="pip install dlib-bin to compare")
  path = _published()
  if not (DATA / "photos.tar").exists():
    pytest.skip(f"{DATA} is not there; it has the photos to compare on")
  chips = _chips(dlib, path.parent, 200)
  assert len(chips) == 200
  network = dlib.face_recognition_model_v1(str(path))
  theirs = np.array(network.compute_face_descriptor(list(chips)))
  variables = dlib_resnet.read(path)
  module, source = DlibResNet(), dlib_resnet.SOURCE

  @jax.jit
  def embed(images):
    inputs = preprocess.standardize(
      preprocess.to_float(images), **source.standardize
    )
    return module.apply(variables, inputs)

  ours = np.concatenate([embed(chips[i : i + 20]) for i in range(0, 200, 20)])
  assert ours.shape == theirs.shape == (200, 128)
  # Measured: 4e-7.
  assert np.abs(ours - theirs).max() < 1e-5
  # Not all alike, and the test would notice BGR.
  assert np.linalg.norm(ours[0] - ours[1:], axis=1).min() > 0.1
  assert np.abs(embed(chips[:1, :, :, ::-1])[0] - theirs[0]).max() > 1e-3
