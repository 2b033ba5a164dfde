"""Committed result files say what made them, and can be made again."""

import json
import pathlib

import numpy as np
import pytest

from facesiam_jax.data import olivetti
from facesiam_jax.evaluation import baselines, protocols

_RESULTS = pathlib.Path(__file__).parents[1] / "benchmarks" / "results"
_FILES = sorted(path.name for path in _RESULTS.glob("*.json"))
# Made before benchmarks/outcome.py noted the commit; the history has it. A file
# that is made anew leaves this list.
_WITHOUT_COMMIT = {
  *("audit.json", "detectors.json", "dlib_agreement.json"),
  *("dlib_pipeline.json", "feed.json", "losses.json"),
  "synthetic.json",
}


def _parts(found, key):
  """Every value of a key, at any depth."""
  if isinstance(found, dict):
    if key in found:
      yield found[key]
    for value in found.values():
      yield from _parts(value, key)


@pytest.mark.parametrize("name", _FILES)
def test_a_result_says_what_made_it(name):
  result = json.loads((_RESULTS / name).read_text())
  commands, versions = (
    list(_parts(result, key)) for key in ("command", "versions")
  )
  assert commands and all(commands), "no command"
  # A path of one machine says nothing on another.
  assert not any("/tmp/" in command for command in commands)
  assert versions and all(some and any(some.values()) for some in versions), (
    "no versions"
  )
  commits = list(_parts(result, "commit"))
  if name in _WITHOUT_COMMIT:
    assert not commits, f"{name} has a commit now: take it off the list"
  else:
    assert commits and all(commits), "no commit"


@pytest.fixture(name="faces", scope="module")
def _faces(tmp_path_factory):
  return olivetti.load(str(tmp_path_factory.mktemp("tfds")), size=64)


@pytest.mark.parametrize("fold", range(4))
def test_raw_pixels_on_olivetti_come_out_as_committed(fold, faces):
  """One row of README's first table, computed again from the faces."""
  result = json.loads((_RESULTS / "olivetti.json").read_text())
  wanted = result["reports"]["Raw pixels"][fold]
  rows = np.isin(faces.identity_ids, olivetti.FOLDS[fold])
  similarity = baselines.raw_pixel_similarity(faces.images[rows])
  found = protocols.verification_report(
    similarity, faces.identity_ids[rows], None
  )
  for name in (
    *("eer", "eer_raw", "auc", "tar_at_far_0.01", "tar_at_far_0.1"),
    *("one_shot_accuracy", "num_people", "num_images", "num_genuine"),
  ):
    assert found[name] == pytest.approx(wanted[name], abs=1e-9), name
  summary = result["summary"]["Raw pixels"]["eer"]
  reports = result["reports"]["Raw pixels"]
  assert summary["mean"] == pytest.approx(
    np.mean([report["eer"] for report in reports])
  )
