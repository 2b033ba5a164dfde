"""Lists of what a training set does without, and the one that is committed."""

import pathlib
import re

import pytest

from facesiam_jax import errors
from facesiam_jax.data import catalogue, exclusion, sets
from facesiam_jax.training import config as config_lib
from tests.data import fake_sets

LIST = pathlib.Path(__file__).parents[2] / "configs/pins_celeba_exclude.txt"
_SETS = ["folder/pins112", "folder/celeba_wild112", "celeba_identity"]


def test_lines_are_read_by_data_set(tmp_path):
  path = tmp_path / "exclude.txt"
  path.write_text(
    "# text\nfolder/x\tperson\t3\twhy\nfolder/x image 4/5\n"
    "# look: folder/x\tperson\t9\nfolder/z person 7\n"
  )
  found = exclusion.read(path, ["folder/x", "folder/y"])
  assert list(found) == ["folder/x"]
  x = found["folder/x"]
  assert x.covers(3, 0) and x.covers(4, 5)
  assert not x.covers(4, 6) and not x.covers(7, 0) and not x.covers(9, 0)
  with pytest.raises(errors.UserError, match="folder/y"):
    exclusion.read(path, ["folder/y"])
  path.write_text("folder/x who\n")
  with pytest.raises(errors.UserError, match="line 1"):
    exclusion.read(path, ["folder/x"])


@pytest.mark.parametrize(
  ("listed", "name", "covers"),
  [
    ("folder/x", "folder/x_64", True),
    ("celeba_identity", "celeba_identity/arcface_112_64", True),
    ("folder/x", "folder/xy", False),
    ("folder/x", "folder/x_b", False),
    ("folder/x.1", "folder/xa1", False),
  ],
)
def test_a_list_holds_for_a_data_set_scaled_or_cut(
  tmp_path, listed, name, covers
):
  path = tmp_path / "exclude.txt"
  path.write_text(f"{listed} person 3\nother image 1/2\n")
  found = exclusion.read(path, [name, "other"])
  assert (name in found) == covers
  assert found["other"].covers(1, 2) and not found["other"].covers(3, 0)
  if covers:
    assert found[name].covers(3, 0) and not found[name].covers(1, 2)


def test_the_committed_list_holds_numbers_only():
  found = exclusion.read(LIST, _SETS)
  assert set(found) == set(_SETS)
  # Sure by their faces: one under two names and two under one.
  assert 40 in found["folder/pins112"].people
  assert 189 in found["folder/celeba_wild112"].people
  assert {7393, 2916} <= found["celeba_identity"].people
  assert len(found["celeba_identity"].images) > 300
  known = re.compile(
    r"(is|of|shows|the same photo as one of|in|a copy is in|no face|too|one"
    r"|somebody else|celeba_wild112|pins112|CelebA|\d+|,| )*"
  )
  for line in LIST.read_text().splitlines():
    if not line.startswith("#"):
      assert known.fullmatch(line.split("\t")[3]), line


def test_none_of_the_excluded_trains(tmp_path):
  listed = exclusion.read(LIST, _SETS)
  faces = {n: fake_sets.jpeg(n) for n in range(3)}
  pins = {
    f"Name{p:02}/{i}.jpg": faces[i % 3] for p in range(55) for i in (0, 1)
  }
  wild = {
    f"{7201 + p:05}/{i}.jpg": faces[i % 3] for p in range(195) for i in (0, 1)
  }
  wild |= {f"07203/{i}.jpg": faces[0] for i in range(9)}
  celeba = fake_sets.celeba(
    tmp_path / "celeba",
    [(f"{n:06}.jpg", str(p), 0) for n, p in enumerate((2916, 5541, 17, 18), 1)],
  )
  data = str(tmp_path / "data")
  for name, files in (("pins112", pins), ("celeba_wild112", wild)):
    source = fake_sets.tree(tmp_path / name, files)
    options = catalogue.Options(source, num_validation=0, num_test=0)
    catalogue.prepare("folder", options, data_dir=data)
  catalogue.prepare("celeba_identity", catalogue.Options(celeba), data_dir=data)
  config = config_lib.default_config().dataset
  config.update(
    data_dir=data, name=",".join(_SETS), num_validation=20, exclude=""
  )
  whole = sets.load(config, image_size=8)
  config.exclude = str(LIST)
  rest = sets.load(config, image_size=8)
  names = lambda data: set(data.faces.names)
  trained = {str(rest.faces.names[p]) for p in rest.train}
  # Their places here: 40 of pins112, 189 of the other folder, CelebA's own.
  gone = {"Name40", "07390", "2916", "5541"}
  assert names(whole) - names(rest) == gone and not trained & gone
  images = lambda data: sum(
    data.faces.names[p] == "07203" for p in data.faces.identity_ids
  )
  assert images(rest) == images(whole) - 1
  assert listed["folder/celeba_wild112"].covers(2, 5)
