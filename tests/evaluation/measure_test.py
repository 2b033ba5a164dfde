"""Tests of facesiam_jax.evaluation.measure."""

import dataclasses

import numpy as np
import pytest
import record_set
import tiny

from facesiam_jax import bundle as bundle_lib
from facesiam_jax import errors
from facesiam_jax.data import records, sets
from facesiam_jax.evaluation import measure
from tests.cli import pixel_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bundle") / "bundle"
  pixel_bundle.save(folder)
  return bundle_lib.load(folder)


@pytest.fixture(scope="module")
def in_memory():
  return sets.DataSet(tiny.Faces(64), (0, 1, 2), (3,), test=(4, 5, 6, 7))


def test_faces_on_the_disk_measure_alike(bundle, in_memory, tmp_path):
  faces = in_memory.faces
  folder = record_set.write(tmp_path, [*faces.images], faces.identity_ids)
  found = records.open_faces(folder)
  order = np.argsort(found.identity_ids, kind="stable")
  on_disk = dataclasses.replace(
    found, images=found.images[order], identity_ids=found.identity_ids[order]
  )
  want = measure.measure(bundle, in_memory)
  got = measure.measure(bundle, dataclasses.replace(in_memory, faces=on_disk))
  assert got.result == want.result
  assert got.baselines.keys() == {"Raw pixels", "Eigenfaces"}
  for name, similarity in want.baselines.items():
    np.testing.assert_array_equal(got.baselines[name], similarity)


def test_the_mirrored_face_is_averaged(bundle, in_memory):
  images, _ = in_memory.of(in_memory.test)
  images = np.asarray(images)
  plain, mirrored = bundle.embed(images), bundle.embed(images[:, :, ::-1])
  mean = (plain.astype(np.float64) + mirrored) / 2
  if bundle.metric == "cosine":
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
  found = measure.measure(bundle, in_memory, mirror=True)
  np.testing.assert_allclose(found.embeddings, mean, atol=1e-6)
  assert np.abs(found.embeddings - plain).max() > 1e-3


def test_without_people_to_train_on_there_are_no_eigenfaces(bundle, in_memory):
  none = dataclasses.replace(in_memory, train=(), validation=())
  found = measure.measure(bundle, none)
  assert found.baselines.keys() == {"Raw pixels"}


def test_too_few_and_too_many_test_people(bundle, in_memory, monkeypatch):
  with pytest.raises(errors.UserError, match="fewer than two test people"):
    measure.measure(bundle, dataclasses.replace(in_memory, test=(4,)))
  monkeypatch.setattr(measure, "_MOST_TEST_IMAGES", 23)
  with pytest.raises(errors.UserError, match="has 24 test faces"):
    measure.measure(bundle, in_memory)


def test_larger_faces_are_small_and_grey_for_the_baselines():
  rng = np.random.default_rng(0)
  cells = rng.integers(0, 256, size=(5, 64, 64, 1)).astype(np.uint8)
  large = np.repeat(np.repeat(np.repeat(cells, 2, 1), 2, 2), 3, 3)
  for images in (cells, large):
    small = measure._small(images)
    assert small.dtype == np.uint8
    np.testing.assert_array_equal(small, cells)


def test_a_set_that_is_framed_otherwise_is_refused(bundle, monkeypatch):
  other = sets.DataSet(tiny.Faces(64), (0,), (), (4, 5), alignment="else")
  monkeypatch.setattr(sets, "load", lambda config, **_: other)
  with pytest.raises(errors.UserError, match="framed as 'else' and this"):
    measure.load_data(bundle, "folder/x")
  found = measure.load_data(bundle, "folder/x", any_alignment=True)
  assert found is other
