"""Tests of facesiam_jax.evaluation.groups."""

import json

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import errors
from facesiam_jax.cli import main
from facesiam_jax.data import synthetic
from facesiam_jax.evaluation import groups
from tests.cli import pixel_bundle

# Accepts most genuine pairs of the one group and few of the other.
_AT = -3.0


def _csv(tmp_path, text):
  path = tmp_path / "groups.csv"
  path.write_text(text)
  return path


def _case(num_people=64, images=3):
  """People of two groups; those of "b" have noisier photos."""
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(num_people), images)
  names = np.array(["a", "b"])[ids % 2]
  vectors = rng.normal(size=(num_people, 8))[ids]
  vectors += (
    rng.normal(size=vectors.shape) * np.where(names == "b", 1.5, 0.4)[:, None]
  )
  similarity = -np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
  return similarity, ids, names


def test_rates_are_those_counted_by_hand():
  similarity, ids, names = _case()
  found = groups.group_report(similarity, ids, names, _AT)
  for row in found["groups"]:
    counts = {"genuine": [], "within": [], "across": []}
    for i in range(ids.size):
      for j in range(i + 1, ids.size):
        accepted = similarity[i, j] >= _AT
        ends = (names[i] == row["group"]) + (names[j] == row["group"])
        if ends == 2:
          kind = "genuine" if ids[i] == ids[j] else "within"
          counts[kind].append(accepted)
        elif ends == 1:
          counts["across"].append(accepted)
    rates = [row[key] for key in ("fnmr", "fmr_within", "fmr_across")]
    wanted = [np.mean(counts[key]) for key in ("genuine", "within", "across")]
    wanted[0] = 1 - wanted[0]
    np.testing.assert_allclose(rates, wanted)
    assert row["genuine"] == len(counts["genuine"])
    assert row["impostor"] == len(counts["within"])
    assert (row["people"], row["images"]) == (32, 96)
    low, high = row["fnmr_interval"]
    assert low < row["fnmr"] < high
    assert "of 32 people" in row["fmr_within_caution"]
  a, b = found["groups"]
  # The planted difference: far clear of both intervals.
  assert a["fnmr_interval"][1] < b["fnmr_interval"][0]
  assert found["fnmr_ratio"] == pytest.approx(b["fnmr"] / a["fnmr"])
  assert found["threshold_of"] == "bundle"
  json.dumps(found, allow_nan=False)


def test_without_a_threshold_that_of_the_eer_is_taken():
  similarity, ids, names = _case(16)
  found = groups.group_report(similarity, ids, names, None)
  assert found["threshold_of"] == "equal error rate"
  assert found["groups"][0]["fnmr_interval"] is None  # Too few people.
  one = groups.group_report(similarity, ids, np.full(ids.size, "all"), None)
  assert one["fmr_ratio"] is None and len(one["groups"]) == 1
  assert one["groups"][0]["fmr_across"] is None


def test_groups_of_people_and_of_images(tmp_path):
  path = _csv(tmp_path, "person, group\nAda,x\nBob,y\nEve,y\n")
  assert groups.of_people(path, ["Bob", "Ada"]) == {"Bob": "y", "Ada": "x"}
  path = _csv(tmp_path, "image,group\nAda/1.png,x\nBob/1.png,y\n")
  images = {"Ada/1.png": "Ada", "Ada/2.png": "Ada", "Bob/1.png": "Bob"}
  assert groups.of_people(path, ["Ada"], images) == {"Ada": "x"}


@pytest.mark.parametrize(
  "text, images, words",
  [
    ("name,group\nAda,x\n", None, "needs a header with the columns person"),
    ("", None, "needs a header"),
    ("person,group\nBob,x\n", None, "no group for Ada: add them"),
    ("person,group\nAda,x\nAda,y\n", None, "puts Ada into two groups, x and y"),
    ("person,group\nAda,\n", None, "a line without person or group"),
    ("person,group\nAda\n", None, "a line without person or group"),
    ("image,group\n1.png,x\n", None, "those of a data set have no names"),
    (
      "image,group\n1.png,x\n2.png,y\n",
      {"1.png": "Ada", "2.png": "Ada"},
      "images of Ada into two groups",
    ),
  ],
)
def test_bad_tables_are_told_in_one_sentence(tmp_path, text, images, words):
  path = _csv(tmp_path, text)
  with pytest.raises(errors.UserError, match=words) as caught:
    groups.of_people(path, ["Ada"], images)
  assert str(path) in str(caught.value)


def test_no_file_and_no_text(tmp_path):
  with pytest.raises(errors.UserError, match="cannot be read"):
    groups.read(tmp_path / "none.csv")
  path = tmp_path / "groups.csv"
  path.write_bytes(b"person,group\n\xff\xfe\x00,x\n")
  with pytest.raises(errors.UserError, match="no CSV text in UTF-8"):
    groups.read(path)


def test_missing_people_are_counted(tmp_path):
  path = _csv(tmp_path, "person,group\n")
  with pytest.raises(errors.UserError, match="for a, b, c and 2 more"):
    groups.of_people(path, list("edcba"))


def test_evaluate_on_drawn_people(tmp_path, capsys):
  """Drawn people of a folder; one group's photos are spoilt."""
  faces = synthetic.make_faces(8, 4, size=64)
  rng = np.random.default_rng(0)
  for row, (image, person) in enumerate(
    zip(faces.images[..., 0], faces.identity_ids, strict=True)
  ):
    if person % 2:
      # Blocks as large as those that the bundle averages over.
      noise = np.kron(rng.normal(0, 90, (16, 16)), np.ones((4, 4)))
      image = np.clip(image + noise, 0, 255).astype(np.uint8)
    place = tmp_path / "people" / faces.names[person]
    place.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(place / f"{row}.png")
  lines = [f"{name},g{n % 2}" for n, name in enumerate(faces.names)]
  table = _csv(tmp_path, "\n".join(["person,group", *lines]))
  pixel_bundle.save(
    tmp_path / "bundle", thresholds={"chosen": {"logit": -35.0}}
  )
  argv = [
    "evaluate", f"--bundle={tmp_path / 'bundle'}", f"--out={tmp_path / 'out'}",
    "--cropped", f"--groups={table}", str(tmp_path / "people"),
  ]  # fmt: skip
  assert main.main(argv) == 0, capsys.readouterr().err
  said = capsys.readouterr().out
  metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
  first, second = metrics["groups"]["groups"]
  assert first["fnmr"] < second["fnmr"]
  assert "g1" in said and f"{second['fnmr']:.2%}" in said
  assert (
    "Error rates by group" in (tmp_path / "out" / "report.html").read_text()
  )
  table.write_text("person,group\nnobody,x\n")
  assert main.main(argv) == 1
  assert "gives no group for person0" in capsys.readouterr().err
