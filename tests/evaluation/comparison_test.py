"""Tests of facesiam_jax.evaluation.comparison and its page."""

import html
import json
import os
import re

import numpy as np
import pytest

from facesiam_jax import errors
from facesiam_jax.cli import main
from facesiam_jax.evaluation import comparison, scores


def _similarity(ids, *, gap=1.5, seed=0):
  rng = np.random.default_rng(seed)
  shared = np.random.default_rng(9).normal(size=(ids.size, ids.size))
  noise = 0.3 * rng.normal(size=(ids.size, ids.size))
  both = shared + shared.T + noise + noise.T + 2 * gap * (
    ids[:, None] == ids[None]
  )  # fmt: skip
  return both.astype(np.float32)


def _run(folder, ids, similarity, *, images=None, **changes):
  """Writes a run's scores; its images are named by numbers."""
  images = range(ids.size) if images is None else images
  ids_of = scores.digests([f"{n:064x}" for n in images])
  settings = {"threshold": 1.5, "bundle": "b", "baselines": {}} | changes
  folder.mkdir(parents=True)
  (folder / scores.FILE).write_bytes(
    scores.packed(similarity, ids, ids_of, **settings)
  )
  return folder


@pytest.fixture(name="ids")
def _ids():
  return np.repeat(np.arange(32), 3)


@pytest.fixture(name="runs")
def _runs(tmp_path, ids):
  """A run, a worse one, and one of the first's scores in another order."""
  good, bad = _similarity(ids), _similarity(ids, gap=0.9, seed=1)
  order = np.random.default_rng(0).permutation(ids.size)
  return [
    _run(tmp_path / "good", ids, good, baselines={"Raw pixels": bad}),
    _run(tmp_path / "bad" / "report", ids, bad, threshold=None).parent,
    _run(
      tmp_path / "again", 50 - ids[order], good[np.ix_(order, order)],
      images=order,
    ),
  ]  # fmt: skip


def _compare(runs, **settings):
  return comparison.compare(
    comparison.open_runs([str(run) for run in runs]),
    **{"resamples": 100} | settings,
  )


def test_a_planted_difference_is_found_and_none_between_equals(runs):
  found = _compare(runs)
  assert found.names == ("good", "bad", "again")
  planted = found.found.differences[0, 1]["auc"]
  assert planted.clear and planted.low > 0
  assert "good is better" in comparison.verdict(found, 0, 1, "auc")
  assert "good is better" in comparison.verdict(found, 0, 1, "eer")
  # Again is good, its images and people in another order.
  for metric, one in found.found.differences[0, 2].items():
    assert one == (0, 0, 0, 1), metric
  assert "no difference larger than its interval" in (
    comparison.verdict(found, 0, 2, "auc")
  )
  assert "bad" not in comparison.verdict(found, 0, 2, "auc")
  # Three pairs of runs: the smallest p-value counts three times.
  adjusted = comparison.adjusted(found, "auc")
  assert adjusted[0, 1] == pytest.approx(3 * planted.p_value)
  assert f"{adjusted[0, 1]:.3f} after Holm" in (
    comparison.verdict(found, 0, 1, "auc")
  )
  alone = _compare(runs[:2])
  assert comparison.adjusted(alone, "auc")[0, 1] == planted.p_value
  assert "Holm" not in comparison.verdict(alone, 0, 1, "auc")


def test_values_are_those_of_each_run_alone(runs, ids):
  from facesiam_jax.evaluation import protocols

  found = _compare(runs)
  for n, threshold in ((0, 1.5), (1, None)):
    alone = protocols.verification_report(
      found.runs[n].similarity, ids, threshold, resamples=100
    )
    for metric, value in found.found.values[n].items():
      assert value == pytest.approx(alone[metric], rel=1e-12), metric
    for metric, ends in found.found.intervals[n].items():
      assert ends == pytest.approx(alone["interval"][metric]), metric


def test_other_images_are_refused_or_left_out(runs, tmp_path, ids):
  fewer = _run(tmp_path / "fewer", ids[4:], _similarity(ids)[4:, 4:],
               images=range(4, ids.size))  # fmt: skip
  with pytest.raises(errors.UserError) as caught:
    _compare([runs[0], fewer])
  assert str(caught.value) == (
    "'good' and 'fewer' were measured on other images (4 are in the first "
    "alone, 0 in the second): --common compares on the images that all have."
  )
  found = _compare([runs[0], fewer], common=True)
  assert found.left_out == (4, 0)
  assert found.found.differences[0, 1]["auc"] == (0, 0, 0, 1)
  others = _run(tmp_path / "others", ids, _similarity(ids),
                images=range(1000, 1000 + ids.size))  # fmt: skip
  for common in (False, True):
    with pytest.raises(errors.UserError, match="evaluate both on the same"):
      _compare([runs[0], others], common=common)


def test_other_people_are_refused(runs, tmp_path, ids):
  moved = ids.copy()
  moved[0] = 31
  other = _run(tmp_path / "other", moved, _similarity(ids))
  with pytest.raises(errors.UserError, match="do not agree which images"):
    _compare([runs[0], other])


def test_common_images_that_allow_no_pair(tmp_path, ids):
  one = _run(tmp_path / "one", ids, _similarity(ids))
  singles = np.arange(0, ids.size, 3)
  other = _run(tmp_path / "other", ids[::3],
               _similarity(ids)[::3, ::3], images=singles)  # fmt: skip
  with pytest.raises(errors.UserError, match="allow no comparison"):
    _compare([one, other], common=True)


def test_few_people_have_no_test_but_numbers(tmp_path, ids):
  few = ids[:30]
  runs = [
    _run(tmp_path / name, few, _similarity(few, gap=gap))
    for name, gap in (("a", 1.0), ("b", 2.0))
  ]
  found = _compare(runs)
  assert "at least 30 people" in found.found.reason
  assert "no interval can be given" in comparison.verdict(found, 0, 1, "eer")
  assert comparison.as_json(found, {})["runs"][0]["interval"] is None


def test_names(runs):
  found = comparison.open_runs([f"first={runs[0]}", f"second={runs[0]}"])
  assert [*found] == ["first", "second"]
  with pytest.raises(errors.UserError, match="two runs are called 'good'"):
    comparison.open_runs([str(runs[0]), str(runs[0])])
  with pytest.raises(errors.UserError, match="there is 1 run to compare"):
    comparison.open_runs([str(runs[0])])
  alone = comparison.open_runs([str(runs[0])], baselines=True)
  assert [*alone] == ["good", "Raw pixels"]
  assert alone["Raw pixels"].threshold is None


def test_command_writes_page_and_numbers(runs, tmp_path, capsys):
  out = tmp_path / "out"
  named = f"<b>={runs[1]}"
  argv = ["report", "--compare", str(runs[0]), named, f"--out={out}"]
  assert main.main([*argv, "--resamples=100"]) == 0
  said = capsys.readouterr().out
  assert "on 32 people, 96 genuine and 4464 impostor pairs" in said
  assert "good is better" in said
  assert sorted(os.listdir(out)) == [
    "compare.html", "compare.json", "det.png", "roc.png"
  ]  # fmt: skip
  numbers = json.loads((out / "compare.json").read_text())
  assert numbers["made"]["command"].startswith("facesiam report --compare")
  assert {"commit", "versions", "python"} <= numbers["made"].keys()
  assert numbers["differences"][0]["metrics"]["auc"]["clear"]
  page = (out / "compare.html").read_text()
  assert "<b>" not in page and "&lt;b&gt;" in page
  for needle in ("http:", "https:", "<script", "url("):
    assert needle not in page
  text = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", page)))
  assert "good is better" in text and "95% interval leaves out 0" in text


def test_what_the_command_does_not_take(runs, tmp_path, capsys):
  out = f"--out={tmp_path / 'out'}"
  for argv, status, words in (
    (["report", out], 2, "--compare RUN1 RUN2"),
    (["report", "--compare", out], 2, "needs runs"),
    (["report", "--compare", str(runs[0])], 2, "--out"),
    (["report", "--compare", out, str(runs[0])], 1, "1 run to compare"),
    (["report", "--compare", out, str(tmp_path), "x"], 1, "holds no report"),
  ):
    assert main.main(argv) == status
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, said
  assert not (tmp_path / "out").exists()
