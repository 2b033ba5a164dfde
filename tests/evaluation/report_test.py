"""Tests of facesiam_jax.evaluation.report."""

import base64
import errno
import html.parser
import json
import os
import pathlib

import numpy as np
import PIL.Image
import pytest

from facesiam_jax import errors
from facesiam_jax.evaluation import baselines, protocols, report
from facesiam_jax.evaluation import page as page_lib
from facesiam_jax.evaluation import scores as scores_lib


def _case(num_people=6, images=4):
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(num_people), images)
  similarity = rng.normal(size=(ids.size, ids.size))
  similarity = similarity + similarity.T + 4 * (ids[:, None] == ids[None])
  faces = rng.integers(0, 256, size=(ids.size, 16, 16, 1)).astype(np.uint8)
  return similarity, ids, faces


def _write(out_dir, *, threshold=2.0, **kwargs):
  similarity, ids, _ = _case()
  result = protocols.verification_report(similarity, ids, threshold)
  return report.write_report(
    out_dir, result, similarity=similarity, identity_ids=ids, **kwargs
  )


def _write_full(out_dir):
  similarity, ids, faces = _case()
  result = protocols.verification_report(similarity, ids, 2.0)
  pixels = baselines.raw_pixel_similarity(faces)
  return _write(
    out_dir,
    images=faces,
    curves={"training_loss": ([0, 1], [1.0, 0.5])},
    baselines={
      "Raw pixels": report.System(
        pixels, protocols.verification_report(pixels, ids, None)
      )
    },
    spread=protocols.summarise([result, result]),
    settings={"encoder": {"dim": np.int64(128), "path": pathlib.Path("x")}},
    fingerprint="abc123",
    made={"command": "facesiam evaluate", "versions": {"jax": "1.2"}},
    embeddings=np.random.default_rng(1).normal(size=(ids.size, 5)),
    image_ids=np.zeros((ids.size, 32), np.uint8),
    calibrated=True,
    title="<script>alert(1)</script> & co",
  )


class _Page(html.parser.HTMLParser):
  """Collects tags, attributes and text, and checks that tags are closed."""

  VOID = {"meta", "img", "link", "br", "hr", "input"}

  def __init__(self, text):
    super().__init__()
    self.stack, self.tags, self.text = [], [], ""
    self.feed(text)
    assert not self.stack, self.stack

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.stack.append(tag)

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag

  def handle_data(self, data):
    self.text += data


@pytest.fixture(scope="module")
def full(tmp_path_factory):
  return _write_full(tmp_path_factory.mktemp("report"))


def test_all_files_are_there_and_nothing_else(full):
  assert full.name == "report.html"
  assert sorted(os.listdir(full.parent)) == [
    "cmc.png", "curves.png", "det.png", "distances.png", "map.png",
    "metrics.json", "open_set.png", "pairs.png", "reliability.png",
    "report.html", "roc.png", "scores.npz", "scores.png",
  ]  # fmt: skip


def test_page_is_self_contained_and_escaped(full):
  text = full.read_text()
  page = _Page(text)
  images = [attrs for tag, attrs in page.tags if tag == "img"]
  assert len(images) == 10
  for attrs in images:
    kind, _, data = attrs["src"].partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert attrs["alt"]
  for tag, attrs in page.tags:
    assert tag not in ("script", "link", "iframe")
    assert not {"href", "srcset", "onload"} & attrs.keys()
  for needle in ("http:", "https:", "url(", "@import", "<script"):
    assert needle not in text
  assert "<script>alert(1)</script> & co" in page.text


def test_page_says_what_was_measured(full):
  page = _Page(full.read_text())
  metrics = json.loads((full.parent / "metrics.json").read_text())
  text = " ".join(page.text.split())
  for needle in (
    "6 people, 24 images, 36 pairs of the same person and 240 of different",
    "Equal error rate (EER)",
    f"{metrics['eer']:.1%}",
    "One-shot accuracy",
    "No confidence interval is given: an interval needs at least 30 people",
    "Raw pixels",
    "encoder.dim 128",
    "abc123",
    "command facesiam evaluate",
    "versions.jax 1.2",
    "Expected calibration error",
    "consent",
    "Nothing here checks that a face is alive",
  ):
    assert needle in text, needle


def test_metrics_json(full):
  text = (full.parent / "metrics.json").read_text()
  metrics = json.loads(text)
  similarity, ids, _ = _case()
  result = protocols.verification_report(similarity, ids, 2.0)
  for name, value in result.items():
    assert metrics[name] == value
  assert metrics["fingerprint"] == "abc123"
  assert metrics["settings"] == {"encoder": {"dim": 128, "path": "x"}}
  assert metrics["spread"]["eer"]["mean"] == result["eer"]
  assert metrics["baselines"]["Raw pixels"]["num_genuine"] == 36
  assert text == json.dumps(metrics, indent=2, sort_keys=True) + "\n"


def test_scores_are_kept(full):
  similarity, ids, faces = _case()
  kept = scores_lib.read(full.parent)
  i, j = np.triu_indices(ids.size, 1)
  np.testing.assert_array_equal(
    kept.similarity[i, j], similarity[i, j].astype(np.float32)
  )
  np.testing.assert_array_equal(kept.identity_ids, ids)
  assert kept.threshold == 2.0 and kept.bundle == "abc123"
  pixels = baselines.raw_pixel_similarity(faces)
  np.testing.assert_array_equal(
    kept.baselines["Raw pixels"], pixels.astype(np.float32)
  )


def test_same_input_gives_the_same_bytes(full, tmp_path):
  again = _write_full(tmp_path)
  for name in os.listdir(full.parent):
    assert (again.parent / name).read_bytes() == (
      full.parent / name
    ).read_bytes()


def test_optional_parts_can_be_left_out(tmp_path):
  page = _write(tmp_path / "new" / "folder", threshold=None)
  assert sorted(os.listdir(page.parent)) == [
    "cmc.png", "det.png", "metrics.json", "open_set.png", "report.html",
    "roc.png", "scores.png",
  ]  # fmt: skip
  text = _Page(page.read_text()).text
  assert "False match rate (FMR)" not in text
  assert "None" not in text
  assert "What was measured" not in text


def test_pictures_of_the_previous_report_go(tmp_path):
  _write(tmp_path, curves={"training_loss": ([0, 1], [1.0, 0.5])})
  assert (tmp_path / "curves.png").exists()
  (tmp_path / "notes.txt").write_text("mine")
  _write(tmp_path)
  assert not (tmp_path / "curves.png").exists()
  assert (tmp_path / "notes.txt").read_text() == "mine"


def test_intervals_and_extra_pictures_are_shown(tmp_path):
  similarity, ids, _ = _case(num_people=30, images=2)
  result = protocols.verification_report(similarity, ids, 2.0, resamples=20)
  png = b"\x89PNG" + b"0" * 8
  page = report.write_report(
    tmp_path,
    result,
    similarity=similarity,
    identity_ids=ids,
    extra=[page_lib.Picture("grid", "Forty people", "Caption.", png)],
  )
  assert (tmp_path / "grid.png").read_bytes() == png
  text = _Page(page.read_text()).text
  assert "95% interval" in text
  assert "Forty people" in text


def test_leaked_people_are_stamped_on_page_and_pictures(tmp_path):
  facts = {
    "subject": "test people of x",
    "options": {"mirror": True},
    "leak": {"checked": True, "reason": None, "people": ["Ada", "Bob"]},
  }
  page = _write(tmp_path / "leaked", facts=facts)
  clean = {**facts, "leak": {**facts["leak"], "people": []}}
  _write(tmp_path / "clean", facts=clean)
  text = " ".join(_Page(page.read_text()).text.split())
  assert "2 of these people were trained on: these figures say" in text
  assert "Test people of x: 6 people" in text and "mirror true" in text
  for path in (tmp_path / "clean").glob("*.png"):
    plain = np.asarray(PIL.Image.open(path).convert("RGB"))
    stamped = np.asarray(PIL.Image.open(tmp_path / "leaked" / path.name))
    more = len(stamped) - len(plain)
    assert 0 < more < len(plain) / 5, path.name
    np.testing.assert_array_equal(stamped[more:], plain)
    # White letters on red.
    assert {(179, 38, 30), (255, 255, 255)} <= {
      tuple(pixel) for pixel in stamped[:more].reshape(-1, 3).tolist()
    }
  metrics = json.loads((tmp_path / "leaked" / "metrics.json").read_text())
  assert metrics["leak"]["people"] == ["Ada", "Bob"]


@pytest.mark.parametrize("failing", [0, 3, 4])
def test_a_full_disk_leaves_the_previous_report(tmp_path, monkeypatch, failing):
  page = _write(tmp_path)
  before = {n: (tmp_path / n).read_bytes() for n in os.listdir(tmp_path)}
  calls = []
  sync = os.fsync

  def full(descriptor):
    calls.append(descriptor)
    if len(calls) > failing:
      raise OSError(errno.ENOSPC, "No space left on device")
    sync(descriptor)

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(errors.UserError) as caught:
    _write(tmp_path, threshold=1.0, fingerprint="other")
  message = str(caught.value)
  assert str(page.parent) in message
  assert "No space left on device; free some space" in message
  assert "\n" not in message
  after = {n: (tmp_path / n).read_bytes() for n in os.listdir(tmp_path)}
  assert after == before


def test_a_file_in_the_way_is_told_in_one_sentence(tmp_path):
  (tmp_path / "report").write_text("a file")
  with pytest.raises(errors.UserError, match="choose another directory"):
    _write(tmp_path / "report")
  assert (tmp_path / "report").read_text() == "a file"


def test_numbers_that_json_cannot_hold_are_refused(tmp_path):
  with pytest.raises(ValueError, match="not JSON compliant"):
    _write(tmp_path, settings={"lr": float("nan")})
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
  "share, text",
  [
    (0.0, "0.0%"),
    (1.0, "100.0%"),
    (0.123, "12.3%"),
    (0.0042, "0.42%"),
    (0.00042, "0.042%"),
    (0.9996, "99.960%"),
  ],
)
def test_rare_errors_are_not_rounded_to_nothing(share, text):
  assert page_lib.percent(share) == text
