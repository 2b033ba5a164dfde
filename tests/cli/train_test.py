"""Tests of the verbs prepare, train, evaluate and demo."""

import json
import pathlib
import shutil

import pytest
import tiny

from facesiam_jax.cli import main
from facesiam_jax.training import run

CONFIG = """
import tiny

def get_config():
  # As tests/training/run_test.py has it: the same programs.
  return tiny.config(ema_decay=0.9)
"""


@pytest.fixture
def recipe(tmp_path):
  path = tmp_path / "tiny_recipe.py"
  path.write_text(CONFIG)
  return str(path)


def _fails(capsys, status, *args):
  """Runs a command that must fail; returns its one sentence."""
  assert main.main(list(args)) == status
  captured = capsys.readouterr()
  lines = captured.err.strip().splitlines()
  assert len(lines) == 1 and "Traceback" not in captured.err, captured.err
  return lines[0]


def test_prepare(tmp_path, capsys):
  args = ["prepare", "--dataset=olivetti", f"--data_dir={tmp_path}"]
  for _ in range(2):
    assert main.main(args) == 0
    assert "400 images of 40 people" in capsys.readouterr().out
  assert list(tmp_path.rglob("*.array_record*"))
  said = _fails(capsys, 1, "prepare", "--dataset=nope")
  assert "--dataset=nope" in said and "olivetti" in said


def test_the_recipe_is_found_by_name_and_by_path(recipe):
  from facesiam_jax.cli import train

  assert pathlib.Path(train.find_recipe("olivetti")).name == "olivetti.py"
  assert train.find_recipe(recipe) == recipe


@pytest.mark.parametrize(
  "status, config, more, expected",
  [
    (2, "nowhere.py", [], "--config=nowhere.py is neither a file nor a recipe"),
    (2, "olivetti", ["--config.num_stepz=3"], "num_stepz"),
    (2, "olivetti", ["--config.num_steps=many"], "num_steps"),
    (2, "olivetti", ["--nope=1"], "there is no flag --nope"),
    (2, "olivetti", ["stray"], "stray"),
    (1, "olivetti", ["--config.num_steps=-1"], "config.num_steps must be"),
    (1, "olivetti", ["--config.encoder.name=x"], "unknown encoder 'x'"),
  ],
)
def test_bad_command_lines_are_one_sentence(
  capsys, tmp_path, status, config, more, expected
):
  workdir = tmp_path / "run"
  said = _fails(
    capsys, status, "train", f"--config={config}", f"--workdir={workdir}", *more
  )
  assert expected in said
  assert not workdir.exists()


@pytest.mark.parametrize(
  "text, expected",
  [
    ("x = = 1", "is not a recipe (SyntaxError"),
    ("x = 1", "is not a recipe (AttributeError"),
    ("import nowhere_at_all", "is not a recipe (ModuleNotFoundError"),
    (
      "import tiny\ndef get_config():\n  c = tiny.config()\n"
      "  with c.unlocked():\n    c.nope = 1\n  return c\n",
      "unknown field 'nope'",
    ),
  ],
)
def test_bad_recipes_are_one_sentence(capsys, tmp_path, text, expected):
  path = tmp_path / "bad.py"
  path.write_text(text)
  said = _fails(
    capsys, 1, "train", f"--config={path}", f"--workdir={tmp_path / 'run'}"
  )
  assert expected in said


@pytest.mark.slow
def test_train_and_evaluate(recipe, tmp_path, capsys):
  workdir = tmp_path / "run"
  train = ["train", f"--config={recipe}", f"--workdir={workdir}"]
  train.append("--config.num_steps=4")
  assert main.main(train) == 0
  out = capsys.readouterr().out
  assert "fingerprint" in out and "calibrated on" in out
  recorded = json.loads((workdir / "config.json").read_text())
  assert recorded["num_steps"] == 4
  said = _fails(capsys, 1, *train[:-1])
  assert "differs in num_steps" in said

  assert main.main(["evaluate", f"--workdir={workdir}"]) == 0
  out = capsys.readouterr().out
  assert "equal error rate" in out and ": 2 people, 30 genuine" in out
  report = workdir / "report"
  metrics = json.loads((report / "metrics.json").read_text())
  text = json.dumps(metrics)
  assert '"eer"' in text and '"num_genuine": 30' in text
  names = {path.name for path in report.iterdir()}
  assert {"roc.png", "det.png", "scores.png", "curves.png"} <= names
  page = (report / "report.html").read_text()
  assert "data:image/png;base64," in page and 'src="http' not in page

  elsewhere = tmp_path / "elsewhere"
  args = ["evaluate", f"--bundle={workdir / 'bundle'}", f"--out={elsewhere}"]
  assert main.main(args) == 0
  assert (elsewhere / "report.html").exists()
  shutil.rmtree(workdir / "bundle")
  assert "has no bundle yet" in _fails(
    capsys, 1, "evaluate", f"--workdir={workdir}"
  )


def test_evaluate_needs_a_run(capsys, tmp_path):
  assert "holds no run" in _fails(
    capsys, 1, "evaluate", f"--workdir={tmp_path}"
  )
  assert "either --workdir or --bundle" in _fails(capsys, 2, "evaluate")
  assert "--out" in _fails(capsys, 2, "evaluate", f"--bundle={tmp_path}")


# `.ci/run` runs the short demo itself.
@pytest.mark.soak
def test_demo_from_faces_to_a_name(tmp_path, capsys, monkeypatch):
  """The whole demo with tiny trainings: real faces, real files, all verbs."""
  from facesiam_jax.cli import demo

  monkeypatch.setattr(demo, "_SHORT_STEPS", 2)
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))

  train = run.train

  def small(config, workdir):
    with config.unlocked():
      if config.encoder.name == "article_cnn":
        config.encoder.args = {"widths": (4, 8, 8), "dim": 16}
      else:
        config.encoder.args = {"num_orientations": 4, "dim": 64}
      config.log_every = config.eval_every = config.checkpoint_every = 2
    return train(config, workdir)

  monkeypatch.setattr(run, "train", small)
  assert main.main(["demo", "--short", f"--workdir={tmp_path / 'demo'}"]) == 0
  out = capsys.readouterr().out
  assert "strangers a probe" in out and "report   " in out
  made = {path.name for path in (tmp_path / "demo").iterdir()}
  assert "identified.png" in made and "gallery.db" in made
  assert len([name for name in made if name.startswith("grid-")]) == 6


def test_tiny_config_is_importable():
  """The recipes above import it by name, as a user's own module."""
  assert tiny.config().dataset.name == "tiny:load"
