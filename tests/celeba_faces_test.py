"""The CelebA benchmark: who may be measured, how faces are framed, a table."""

import importlib
import pathlib

import numpy as np
import pytest

from facesiam_jax import alignment, errors
from facesiam_jax.training import config as config_lib
from tests import celeba_people_test as people_test
from tests import colour_bundle
from tests.cli import pixel_bundle

_BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def celeba(monkeypatch):
  """Imports a script's module as the script does."""
  monkeypatch.syspath_prepend(str(_BENCHMARKS))
  return importlib.import_module


def test_landmarks_go_where_a_bundle_wants_them(celeba, tmp_path):
  faces = celeba("celeba_faces")
  bundle = colour_bundle.save(tmp_path, size=150, alignment="dlib_150")
  places = alignment.TEMPLATES[faces.ALIGNMENT].places["five"]
  wanted = alignment.TEMPLATES["dlib_150"].places["five"] * 150
  across = np.arange(112) + 0.5
  for side in (112, 64):
    across = np.arange(side) + 0.5
    for number in range(5):
      x, y = places[number] * side
      square = (across - x) ** 2 + (across[:, None] - y) ** 2
      spot = 200 * np.exp(-square / (2 * 2.0**2))
      image = np.repeat(spot[..., None], 3, 2).astype(np.uint8)
      (framed,) = faces.framed(image[None], bundle)
      assert framed.shape == (150, 150, 3)
      light = framed[..., 0].astype(float)
      centre = np.array(
        [
          (light.sum(axis) @ (np.arange(150) + 0.5)) / light.sum()
          for axis in (0, 1)
        ]
      )
      # Both templates are means of faces: alike to 3 pixels, not the same.
      assert np.abs(centre - wanted[number]).max() < 5
      matrix = alignment.to_image(places * side, "dlib_150", size=150)
      back = np.asarray(alignment.transform(matrix, centre[None]))[0]
      assert np.abs(back - (x, y)).max() < 0.25


def test_in_arcface_s_frame_faces_are_scaled_only(celeba, tmp_path):
  faces = celeba("celeba_faces")
  bundle = colour_bundle.save(tmp_path, size=56, alignment=faces.ALIGNMENT)
  images = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)
  want = images.reshape(3, 56, 2, 56, 2, 3).mean((2, 4))
  assert np.abs(faces.framed(images, bundle) - want).max() <= 0.5
  embed = faces.Embedder(bundle, tmp_path / "cache")
  first = embed(images)
  np.testing.assert_array_equal(
    first, bundle.embed(faces.framed(images, bundle))
  )
  # What is kept is of these faces and this bundle.
  assert len(list((tmp_path / "cache").iterdir())) == 1
  np.testing.assert_array_equal(embed(images), first)
  assert not np.array_equal(embed(images[::-1]), first)
  assert len(list((tmp_path / "cache").iterdir())) == 2


def test_who_was_trained_on_people_that_are_measured_on_is_refused(
  celeba, tmp_path
):
  systems, people = celeba("celeba_systems"), celeba("celeba_people")
  parts = dict.fromkeys(people_test.WILD, "train")
  parts |= dict.fromkeys(people_test.TEST, "test")
  data_dir = people_test.prepare_small(tmp_path, parts)
  config = config_lib.default_config()
  config.dataset.update(
    name=f"{people.CELEBA},{people.WILD}", num_validation=3, min_images=2
  )
  kept_out = {"7209", "7210", "19", "20"}

  def opened(**fields):
    config.dataset.update(fields)
    known = {"config": config.to_dict(), "alignment": "arcface_112"}
    pixel_bundle.save(tmp_path / "run" / "bundle", **known)
    return systems.recogniser(
      tmp_path / "run", data_dir, tmp_path / "cache", kept_out
    )

  found = opened().about
  assert found["training_people"] == 8 and found["input"] == [64, 64, 1]
  with pytest.raises(errors.UserError, match="2 of the people.*19, 20"):
    opened(min_images=1)
  with pytest.raises(errors.UserError, match="7209"):
    opened(min_images=2, name=people.CELEBA)
  colour_bundle.save(tmp_path / "other")
  with pytest.raises(errors.UserError, match="eyes_of_somebody"):
    systems.recogniser(tmp_path / "other", data_dir, tmp_path, kept_out)


def test_the_table_has_every_system_and_column(celeba):
  script = celeba("celeba")
  rows = script.table({"Chance": script._chance()}).splitlines()
  assert rows[0].count("|") == rows[2].count("|") == 10
  assert rows[2].startswith(
    "| Chance | 50.0 | 50.0 | 50.0 | 1.0 | 10.0 | 1.7 |"
  )
  entry = {"value": 0.5, "low": 0.25, "high": 0.75}
  assert script._cell(entry, interval=True) == "50.0 (25.0 to 75.0)"
  assert script._cell(entry, interval=False) == "50.0"
