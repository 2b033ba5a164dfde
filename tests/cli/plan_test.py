"""Tests of the verb plan; CPU devices stand in for the pod."""

import json

import jax
import pytest

from facesiam_jax import parallel
from facesiam_jax.cli import main
from facesiam_jax.training import chips, plan

_RECIPE = """
import tiny

def get_config():
  return tiny.config("supcon", objective__args={"num_people": 4,
                     "images_per_person": 4})
"""
_PEOPLE = ("--num_people=6", "--gallery_size=100", "--queries=8", "--k=2")


@pytest.fixture
def recipe(tmp_path, monkeypatch):
  """A recipe's path; pods are the eight CPU devices."""
  path = tmp_path / "tiny_recipe.py"
  path.write_text(_RECIPE)
  monkeypatch.setattr(plan, "open_mesh", lambda _: parallel.make_mesh())
  platforms = jax.config.jax_platforms
  yield str(path)
  jax.config.update("jax_platforms", platforms)


def _run(recipe, *flags, topology="v5e:2x4"):
  return main.main(
    ["plan", f"--config={recipe}", f"--topology={topology}", *flags]
  )


def _error(capsys):
  said = capsys.readouterr()
  (line,) = said.err.strip().splitlines()
  assert not said.out
  return line


def test_table(recipe, capsys):
  assert _run(recipe, *_PEOPLE) == 0
  told = capsys.readouterr().out
  assert told.startswith("v5e:2x4: 8 chips, each with 17.180 GB, 197 TFLOP/s")
  assert "training step of article_cnn with supcon, 16 images" in told
  assert "6 people, streaming feed" in told
  assert "search for 8 faces among 100 of 10 numbers in float32, k = 2" in told
  assert told.count("limited by") == 2 and "all-gather" in told


def test_json(recipe, capsys):
  assert _run(recipe, "--json", "--gallery_size=0", *_PEOPLE[:1]) == 0
  told = json.loads(capsys.readouterr().out)
  assert told["num_chips"] == 8 and told["chip"]["name"] == "v5e"
  (step,) = told["programs"]
  memory = step["memory"]
  assert memory.pop("total") == sum(memory.values())
  assert step["limit"] in step["seconds"]
  assert step["roofline"] == max(step["seconds"].values())
  assert {one["kind"] for one in step["collectives"]} >= {"all-reduce"}
  assert all(one["sent_bytes"] > 0 for one in step["collectives"])


def test_the_data_set_says_how_many_there_are(recipe, capsys):
  assert _run(recipe, "--gallery_size=0") == 0
  # 6 people to train on, 2 of them for validation, 6 images each.
  assert "4 people, resident feed" in capsys.readouterr().out


def test_a_data_set_that_is_not_there_is_not_needed(recipe, capsys):
  lfw = ("--config.dataset.name=lfw", "--config.dataset.data_dir=/none")
  assert _run(recipe, *lfw, "--gallery_size=0") == 1
  assert "or give --num_people" in _error(capsys)
  assert _run(recipe, *lfw, *_PEOPLE) == 0


def test_what_does_not_fit_ends_with_status_1(recipe, capsys, monkeypatch):
  small = chips.Chip("v5e", 1e4, flops=1.0, hbm_rate=1.0, link_rate=1.0)
  monkeypatch.setitem(chips.CHIPS, "v5e", small)
  assert _run(recipe, *_PEOPLE) == 1
  assert "this does not fit: the training step of" in _error(capsys)


def test_wrong_command_lines(recipe, capsys):
  assert _run(recipe, "more") == 2
  assert "flags only" in _error(capsys)
  assert main.main(["plan", f"--config={recipe}"]) == 2
  assert "--topology is required" in _error(capsys)
  assert _run(recipe, *_PEOPLE, topology="v7:2x2") == 1
  assert "--topology=v7:2x2" in _error(capsys)
  assert _run(recipe, "--config.image_size=3") == 1
  assert "image_size" in _error(capsys)
