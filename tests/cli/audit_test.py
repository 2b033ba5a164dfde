"""The verb `audit`: what it finds, writes and refuses."""

import csv
import json

import numpy as np
import PIL.Image
import pytest

from facesiam_jax.cli import main
from facesiam_jax.data import catalogue, exclusion
from facesiam_jax.evaluation.audit import people
from tests.cli import pixel_bundle
from tests.data import fake_sets


def _run(capsys, *args):
  status = main.main(["audit", *map(str, args)])
  out, err = capsys.readouterr()
  return status, out, err


def _face(seed):
  """Coarse noise, in which copies can be told."""
  values = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
  image = PIL.Image.fromarray(values)
  return image.resize((64, 64), PIL.Image.Resampling.BICUBIC)


def _png(image):
  return fake_sets.encode(image, "PNG")


def _folders(root):
  """Two folders that share a person, a photo, a copy and a mirrored one."""
  small = _face(1).resize((48, 48), PIL.Image.Resampling.LANCZOS)
  mirrored = _face(2).transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
  a = {f"Ada_Lovelace/{n}.png": _png(_face(10 + n)) for n in range(3)}
  a |= {f"Grace/{n}.png": _png(_face(n)) for n in range(4)}
  b = {"ada lovelace/x.png": _png(_face(30)), "Mary/0.png": _png(_face(0))}
  b |= {
    "ada lovelace/02.png": _png(_face(31)),
    "Mary/1.jpg": fake_sets.encode(small, "JPEG", quality=70),
    "Mary/2.png": _png(mirrored),
    "Mary/3.png": b"",
    "Mary/4.png": _png(_face(40))[:-40],
  }
  return fake_sets.tree(root / "a", a), fake_sets.tree(root / "b", b)


def _pairs(out):
  report = json.loads((out / "audit.json").read_text())
  return [
    (pair["kind"], *(image["file"] for image in pair["images"]))
    for pair in report["pairs"]
  ]


def test_what_two_folders_share(tmp_path, capsys):
  a, b = _folders(tmp_path)
  out = tmp_path / "report"
  words = [f"--train={a}", f"--test={b}", f"--out={out}"]
  status, printed, _ = _run(capsys, *words)
  assert status == 0 and "1 images that are empty" in printed
  assert "1 images that are damaged" in printed
  assert "look like one" not in printed
  found = _pairs(out)
  assert found[:3] == [
    ("people_by_name", "Ada_Lovelace/0.png", "ada lovelace/02.png"),
    ("images_by_name", "Ada_Lovelace/2.png", "ada lovelace/02.png"),
    ("identical", "Grace/0.png", "Mary/0.png"),
  ]
  assert sorted(found[3:]) == [
    ("near_identical", "Grace/1.png", "Mary/1.jpg"),
    ("near_identical", "Grace/2.png", "Mary/2.png"),
  ]
  (excluded,) = exclusion.read(out / "exclude.txt", [str(a)]).values()
  assert excluded.people == {0} and excluded.images == {(1, 0), (1, 1), (1, 2)}
  page = (out / "audit.html").read_text()
  # Three images of each of the two who share a name, where they have three.
  assert page.count("data:image/jpeg;base64") == 3 + 2 + 4 * 2
  assert "http" not in page and "<script" not in page
  rows = list(csv.DictReader((out / "audit.csv").read_text().splitlines()))
  assert [(r["kind"], r["file_a"], r["file_b"]) for r in rows] == found


def _crowd(root):
  """64 people of the pixel bundle's kind; what is wrong among them.

  Person 3 is person 64 too, an image of person 5 lies under person 6, and a
  photo of person 7 is there once more, cut and mirrored.
  """
  rng = np.random.default_rng(0)
  files = {}
  for person in range(64):
    base = np.asarray(_face(1000 + person), float)
    for number in range(6):
      change = np.asarray(_face(5000 + 6 * person + number), float) - 128
      pixels = np.clip(base + 0.45 * change + rng.normal(0, 2), 0, 255)
      owner = 64 if person == 3 and number > 2 else person
      owner = 6 if (person, number) == (5, 0) else owner
      image = PIL.Image.fromarray(pixels.astype(np.uint8))
      files[f"p{owner:02}/{person}_{number}.png"] = _png(image)
      if (person, number) == (7, 1):
        cut = image.crop((3, 3, 61, 61)).resize((64, 64))
        files["p07/again.png"] = _png(cut)
  return fake_sets.tree(root, files)


def test_one_set_alone_with_a_bundle(tmp_path, capsys):
  source = _crowd(tmp_path / "crowd")
  pixel_bundle.save(tmp_path / "bundle")
  out = tmp_path / "report"
  words = [f"--train={source}", f"--out={out}", "--alignment=olivetti"]
  status, printed, _ = _run(capsys, *words, f"--bundle={tmp_path}/bundle")
  assert status == 0 and "in both" not in printed
  report = json.loads((out / "audit.json").read_text())
  sure = [p for p in report["pairs"] if p["grade"] == "sure"]
  by_kind = {p["kind"]: p for p in sure}
  # The photo that was cut differs in too many bits, and is found all the same.
  assert sorted(by_kind) == ["copies", "label_suspects", "people_alike"]
  shown = lambda kind: [i["person"] for i in by_kind[kind]["images"]]
  assert shown("people_alike") == ["p03", "p64"]
  assert by_kind["label_suspects"]["images"][0]["file"] == "p06/5_0.png"
  assert shown("label_suspects") == ["p06", "p05"]
  assert {i["file"] for i in by_kind["copies"]["images"]} == {
    "p07/7_1.png",
    "p07/again.png",
  }
  (excluded,) = exclusion.read(out / "exclude.txt", [str(source)]).values()
  # Three images each: the second goes. A copy under one name may stay.
  assert excluded.people == {64} and excluded.images == {(6, 0)}
  text = (out / "exclude.txt").read_text()
  looks = [p for p in report["pairs"] if p["grade"] == "look"]
  told = {p["kind"] for p in looks} - {"near_identical", "copies"}
  assert text.count("# look: ") <= len(looks) and told <= {
    "people_alike",
    "label_suspects",
  }
  assert report["chance"]["train-train"]["pairs"] == 65 * 64 // 2


def test_among_few_pairs_of_people_nobody_is_sure(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(people, "FEWEST_FOR_SURE", 65 * 64 // 2 + 1)
  source = _crowd(tmp_path / "crowd")
  pixel_bundle.save(tmp_path / "bundle")
  out = tmp_path / "report"
  words = [f"--train={source}", f"--out={out}", "--alignment=olivetti"]
  assert _run(capsys, *words, f"--bundle={tmp_path}/bundle")[0] == 0
  report = json.loads((out / "audit.json").read_text())
  grades = {p["grade"] for p in report["pairs"] if p["kind"] == "people_alike"}
  assert grades == {"look"}


def test_too_few_people_are_said_to_be(tmp_path, capsys):
  a, b = _folders(tmp_path)
  pixel_bundle.save(tmp_path / "bundle")
  status, printed, _ = _run(
    capsys, f"--train={a}", f"--test={b}", "--alignment=olivetti",
    f"--bundle={tmp_path}/bundle",
  )  # fmt: skip
  assert status == 0 and "too few people" in printed


def test_splits_of_a_prepared_set_are_compared(tmp_path, capsys):
  source = fake_sets.tree(tmp_path / "people", fake_sets.people(9, 2))
  catalogue.prepare(
    "folder",
    catalogue.Options(source, num_validation=3, num_test=2),
    data_dir=str(tmp_path / "data"),
  )
  data = f"--data_dir={tmp_path}/data"
  name = "folder/people"
  words = [f"--train={name}:train", f"--test={name}:test", data]
  status, printed, _ = _run(capsys, *words)
  assert status == 0 and "8 images of 4 people" in printed
  for test in (name, f"{name}:train"):
    status, _, err = _run(
      capsys, f"--train={name}:train", f"--test={test}", data
    )
    assert status == 1 and "same images" in err and err.count("\n") == 1


def test_only_so_many_are_shown_and_all_are_listed(
  tmp_path, capsys, monkeypatch
):
  from facesiam_jax.evaluation.audit import writing

  monkeypatch.setattr(writing, "SHOWN", 2)
  files = {f"p{n}/0.png": _png(_face(n)) for n in range(5)}
  a = fake_sets.tree(tmp_path / "a", files)
  b = fake_sets.tree(tmp_path / "b", files)
  out = tmp_path / "report"
  _run(capsys, f"--train={a}", f"--test={b}", f"--out={out}")
  page = (out / "audit.html").read_text()
  # People, their images by name, and the same pixels: two pairs of each.
  assert page.count("data:image/jpeg") == 3 * 2 * 2
  assert "The first 2 of\n  5" in page and len(_pairs(out)) == 15


@pytest.mark.parametrize(
  "words, match",
  [
    (["--train=a", "--test=a/../a"], "same images"),
    (["--train=a", "--test=nowhere"], "nowhere is not prepared"),
    (["--train=nowhere"], "nowhere is not prepared"),
    (["--train=a", "--test=lfw:half"], "validation"),
    (["--train=a", "--test=b", "--bundle=none"], "--bundle=none"),
    (["--train=a", "--test=empty"], "empty"),
    (["--train=a", "--test=broken"], "no image that can be read"),
    (["--train=a", "--out=a/Grace/0.png"], "--out"),
    (["--train=a", "--bundle=bundle"], "--alignment"),
  ],
)
def test_one_sentence_names_what_is_wrong(
  tmp_path, monkeypatch, capsys, words, match
):
  monkeypatch.chdir(tmp_path)
  _folders(tmp_path)
  (tmp_path / "empty").mkdir()
  fake_sets.tree(tmp_path / "broken", {"Ada/0.jpg": b"no", "Ada/1.png": b""})
  pixel_bundle.save(tmp_path / "bundle")
  status, _, err = _run(capsys, *words, "--data_dir=data")
  assert status == 1 and match in err and err.count("\n") == 1


def test_a_page_that_cannot_be_written_leaves_the_old_one(
  tmp_path, monkeypatch, capsys
):
  from facesiam_jax import files
  from facesiam_jax.evaluation.audit import writing

  a, b = _folders(tmp_path)
  out = tmp_path / "report"
  _run(capsys, f"--train={a}", f"--out={out}")
  before = (out / "audit.html").read_bytes()
  write = files.write

  def full(path, data):
    if path.name == writing.PAGE:
      raise OSError(28, "No space left on device")
    write(path, data)

  monkeypatch.setattr(files, "write", full)
  words = [f"--train={a}", f"--test={b}", f"--out={out}"]
  status, printed, err = _run(capsys, *words)
  assert status == 1 and "No space left" in err and "report" not in printed
  assert (out / "audit.html").read_bytes() == before
  assert people.SURE < people.LOOK
