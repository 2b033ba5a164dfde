"""The page of speeds is what the results say; the quick rows run."""

import importlib
import json
import pathlib
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_ROWS = (
  "article step, sampling and augmentation ours only",
  "max_pool, value and gradient",
  "conv 3x3, value and gradients",
  "hardest triplets, value and gradient",
  "gallery, 10 best",
)


@pytest.fixture(name="of", scope="module")
def _of():
  """Returns a function that imports a module of the benchmarks' folder."""
  sys.path.insert(0, str(_ROOT / "benchmarks"))
  yield importlib.import_module
  sys.path.remove(str(_ROOT / "benchmarks"))


def test_the_page_is_what_the_results_say(of):
  written = (_ROOT / "docs" / "performance.md").read_text("utf-8")
  assert written == of("performance_page").page()


def test_a_row_says_whether_its_goal_is_reached(of, tmp_path):
  part = {
    "images": 128,
    "milliseconds": {"ours": 90.0, "keras": 100.0, "torch": 180.0},
    "ratio": {"keras": 0.9, "torch": 0.5},
    "ratio_range": {"keras": [0.8, 1.0], "torch": [0.4, 0.6]},
    "versions": {"jax": "1"},
  }
  (tmp_path / "training.json").write_text(json.dumps({"article": part}))
  rows = of("performance_page").table(tmp_path)
  found = {(row.work, row.against): row for row in rows}
  work = "article CNN, 64 pairs, whole step"
  assert found[work, "Keras `fit`"].reached
  slow = found[work, "PyTorch channels_last"]
  assert not slow.reached and "| 0.45 | 0.5 |" in slow.text()
  unknown = found["MobileFaceNet triplet step", "PyTorch channels_last"]
  assert not unknown.reached and "not measured" in unknown.text()


def test_the_newest_jax_has_a_table_of_what_was_measured(of, tmp_path):
  page = of("performance_page").page
  assert "Not measured." in page(tmp_path)
  mined = {
    "milliseconds": {"mined": 101.0, "random": 100.0},
    "ratio": {"random": 1.01},
    "ratio_range": {"random": [1.0, 1.02]},
    "versions": {"jax": "2"},
  }
  (tmp_path / "training_newest.json").write_text(json.dumps({"mining": mined}))
  part = page(tmp_path).split("## Under the newest JAX")[1].split("\n## ")[0]
  assert part.count("\n|") == 3
  assert "1.01 | 101 / 100 ms, 1.00 to 1.02 | yes |" in part
  assert "- training_newest.json: jax 2" in page(tmp_path)
  forward = {
    "network": "resnet50",
    "batch": 64,
    "ours_ms_a_face": 4.0,
    "torch_ms_a_face": 5.0,
    "torch_by_ours": 1.25,
  }
  found = {"cases": [forward], "versions": {"jax": "3"}}
  (tmp_path / "encoders_newest.json").write_text(json.dumps(found))
  part = page(tmp_path).split("## Under the newest JAX")[1].split("\n## ")[0]
  assert "resnet50, batch 64 | PyTorch | 1 | 0.8 | 4.0 / 5.0 ms" in part
  assert "- encoders_newest.json: jax 3" in page(tmp_path)


def test_the_quick_rows_are_these(of):
  assert tuple(of("quick").ROWS) == _ROWS


# The first compiles two whole training steps.
@pytest.mark.parametrize(
  "name", [pytest.param(_ROWS[0], marks=pytest.mark.slow), *_ROWS[1:]]
)
def test_a_quick_row_runs_and_both_sides_agree(name, of):
  quick = of("quick")
  # Eight pairs, for the tests' eight devices.
  sizes = quick.Sizes(pairs=8, images=2, batch=16, templates=64, queries=4)
  row = quick.measure(name, sizes, 1)
  assert row["ours"] > 0 and row["reference"] > 0
  assert row["ratio"] == pytest.approx(row["ours"] / row["reference"])


@pytest.mark.parametrize("network", ["article_cnn", "resnet18"])
def test_a_fixed_batch_is_of_groups(of, network):
  cases = of("training_cases")
  case = cases.Case(network, 6, size=20, channels=1)
  images, ids = cases.batch(case)
  assert images.shape == (case.rows, 20, 20, 1) and images.dtype == "uint8"
  if case.group == 2:
    assert cases.same(ids).tolist() == [1, 0, 1, 0, 1, 0]
  else:
    assert (ids[0::3] == ids[1::3]).all() and (ids[0::3] != ids[2::3]).all()
    # Two images of a person, not one image twice.
    assert (images[0::3] != images[1::3]).any(axis=(1, 2, 3)).all()
