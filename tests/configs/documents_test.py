"""The recipes of the documents: their commands, and two steps of each."""

import ast
import pathlib
import re
import shlex

import jax
import numpy as np
import pytest

from facesiam_jax import parallel
from facesiam_jax.cli import main, prepare, train
from facesiam_jax.data import resident
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import recipe as recipe_lib
from facesiam_jax.training import step as step_lib

ROOT = pathlib.Path(__file__).parents[2]
RECIPES = {path.stem: path for path in (ROOT / "configs").glob("[!_]*.py")}
VERBS = {"train": train, "prepare": prepare}
# What a network for 64 or 178 pixels becomes, to be compiled in a second.
TINY = {"article_cnn": {"widths": (2, 3, 4), "dim": 6, "dropout": 0.0}}
TINY["resnet50"] = {"stage_sizes": (1,), "width": 2, "dim": 6}


def _commands(path):
  """The commands of a recipe's head comment."""
  text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
  joined = re.sub(r"\\\n\s*", "", text)
  found = re.findall(r"^ *(facesiam .*)$", joined, flags=re.MULTILINE)
  return [shlex.split(command)[1:] for command in found]


@pytest.fixture
def parsed(monkeypatch):
  """Parses a command as `facesiam` does, and runs nothing."""
  found = []

  def keep(flag_values, args):
    assert not args, "nothing but flags"
    found.append(flag_values)
    return 0

  for verb in VERBS.values():
    monkeypatch.setattr(verb, "run", keep)

  def parse(command):
    assert main.main(command) == 0
    return found.pop()

  return parse


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_commands_of_a_head_comment_parse(name, parsed):
  commands = _commands(RECIPES[name])
  assert commands
  for command in commands:
    values = parsed(command)
    if command[0] == "train":
      # A recipe of several losses is followed by one of them.
      (recipe,) = (word for word in command if word.startswith("--config="))
      assert recipe.partition(":")[0] == f"--config={name}"
      config_lib.validate(values.config)
      recipe_lib.make_recipe(values.config)


def test_the_report_on_two_cores_is_smaller_in_what_its_command_says(parsed):
  large, small = (
    parsed(command).config
    for command in _commands(RECIPES["csc413_triplet"])
    if command[0] == "train"
  )
  assert config_lib.differences(large, small) == [
    *("dataset.name", "encoder.name", "image_size", "num_steps")
  ]
  assert (large.encoder.name, large.num_steps) == ("resnet50", 1400)
  assert large.objective.args.num_triplets == 48


def _small(config):
  """A recipe with a tiny network and batch, on 16 pixels."""
  with config.unlocked():
    config.image_size = 16
    config.encoder.args = TINY[config.encoder.name]
    for size in ("num_pairs", "num_triplets", "num_images"):
      if size in config.objective.args:
        config.objective.args[size] = 8
  return config


@pytest.mark.parametrize(
  "name",
  ["chi_square_bce", "csc413_cnn", "csc413_triplet", "difference_bce"]
  + ["euclidean_bce", "euclidean_contrastive", "olivetti_article"],
)
def test_two_steps_learn_something(name, parsed, devices):
  command = ["train", f"--config={name}", "--workdir=x"]
  config = _small(parsed(command).config)
  recipe = recipe_lib.make_recipe(config)
  rng = np.random.default_rng(0)
  shape = (16, 16, config.dataset.channels)
  faces = rng.integers(0, 256, (12, *shape)).astype(np.uint8)
  mesh = parallel.make_mesh(devices[:1])
  data = resident.make_resident(faces, np.repeat(np.arange(4), 3))
  state = recipe_lib.init_on_mesh(recipe, shape, 4, mesh)
  before = jax.device_get(state.params)
  steps = step_lib.make_train_steps(recipe, mesh, 1)
  for _ in range(2):
    state, metrics = steps(state, parallel.replicate(data, mesh))
  assert int(state.step) == 2
  assert np.isfinite(metrics["loss"][0]) and metrics["grad_norm"][0] > 0
  moved = jax.tree.map(
    lambda a, b: bool(np.any(a != b)), before, jax.device_get(state.params)
  )
  assert any(jax.tree.leaves(moved["encoder"]))
  trains_head = config.objective.name == "pair_bce"
  assert any(jax.tree.leaves(moved["head"])) == trains_head
  assert any(jax.tree.leaves(moved["objective"])) == (name == "csc413_cnn")
