"""Tests of facesiam_jax.evaluation.scores."""

import hashlib
import io

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.evaluation import scores


def _image_ids(names):
  return scores.digests([hashlib.sha256(n.encode()).hexdigest() for n in names])


def _write(folder, num=6, **changes):
  rng = np.random.default_rng(0)
  similarity = rng.normal(size=(num, num)).astype(np.float32)
  settings = {"threshold": 0.5, "bundle": "abc", "baselines": {}} | changes
  content = scores.packed(
    similarity + similarity.T,
    np.arange(num) // 2 + 40,
    _image_ids(map(str, range(num))),
    **settings,
  )
  folder.mkdir(parents=True, exist_ok=True)
  (folder / scores.FILE).write_bytes(content)
  return similarity + similarity.T


def test_what_is_written_is_read_again(tmp_path):
  wanted = _write(tmp_path / "run" / "report")
  for place in (tmp_path / "run", tmp_path / "run" / "report"):
    found = scores.read(place)
    np.fill_diagonal(wanted, 0)
    np.testing.assert_array_equal(found.similarity, wanted)
    assert found.identity_ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.threshold == 0.5 and found.bundle == "abc"
  _write(tmp_path, threshold=None)
  assert scores.read(tmp_path).threshold is None


def test_it_holds_no_names():
  content = scores.packed(
    np.zeros((2, 2)), ["Ada", "Ada"], _image_ids(["Ada/1.jpg", "Ada/2.jpg"]),
    threshold=None, bundle="", baselines={},
  )  # fmt: skip
  assert b"Ada" not in content
  with np.load(io.BytesIO(content)) as file:
    assert not any("Ada" in str(file[name]) for name in file.files)


def test_some_images_are_some_rows_and_columns(tmp_path):
  wanted = _write(tmp_path)
  found = scores.read(tmp_path).of(np.array([4, 1, 0]))
  np.testing.assert_array_equal(found.similarity[0, 1:], wanted[4, [1, 0]])
  assert found.identity_ids.tolist() == [0, 1, 1]
  assert found.data != scores.read(tmp_path).data


def test_people_are_numbered_as_they_come():
  assert scores.numbered([9, 2, 9, 5]).tolist() == [0, 1, 0, 2]
  assert scores.numbered(["b", "a", "b"]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
  "spoil, message",
  [
    (lambda a: a | {"version": np.int32(2)}, "is of version 2"),
    (lambda a: a | {"scores": a["scores"][:-1]}, "is damaged"),
    (lambda a: a | {"scores": a["scores"] * np.nan}, "is damaged"),
    (lambda a: a | {"image_ids": a["image_ids"][::-1]}, "is damaged"),
    (lambda a: {"version": a["version"]}, "is damaged"),
    (lambda a: {"scores": a["scores"]}, "is damaged"),
  ],
)
def test_damaged_files_are_told_in_one_sentence(tmp_path, spoil, message):
  _write(tmp_path)
  with np.load(tmp_path / scores.FILE) as file:
    arrays = dict(file)
  np.savez(tmp_path / scores.FILE, **spoil(arrays))
  with pytest.raises(errors.UserError, match=message) as caught:
    scores.read(tmp_path)
  assert str(tmp_path) in str(caught.value)


def test_a_cut_file_and_a_missing_one(tmp_path):
  _write(tmp_path)
  whole = (tmp_path / scores.FILE).read_bytes()
  (tmp_path / scores.FILE).write_bytes(whole[: len(whole) // 2])
  with pytest.raises(errors.UserError, match="is damaged"):
    scores.read(tmp_path)
  (tmp_path / scores.FILE).unlink()
  with pytest.raises(errors.UserError, match="run `facesiam evaluate` on it"):
    scores.read(tmp_path)
  with pytest.raises(errors.UserError, match="is no folder"):
    scores.read(tmp_path / "none")


def test_every_image_has_a_digest():
  with pytest.raises(ValueError, match=r"image_ids must have shape \[2, 32\]"):
    scores.packed(
      np.zeros((2, 2)), [1, 1], _image_ids(["a"]),
      threshold=None, bundle="", baselines={},
    )  # fmt: skip
