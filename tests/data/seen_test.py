"""People of an evaluation who were trained on."""

import pytest

from facesiam_jax.data import catalogue, sets
from facesiam_jax.training import config as config_lib
from facesiam_jax.training import run
from tests import tiny
from tests.data import fake_sets


class _Faces:
  names = ("Ada Lovelace", "Grace", "ada_lovelace", "Mary", "07", "7")


def test_shared_ids_and_names_are_told_once():
  data = sets.DataSet(_Faces(), train=(0, 1, 4), validation=(1, 2), test=(3, 5))
  assert sets.seen_in_training(data) == ("Grace", "ada_lovelace", "7")
  clean = sets.DataSet(_Faces(), train=(0, 1), validation=(3,), test=(4,))
  assert sets.seen_in_training(clean) == ()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Two sets: people by name in both spellings, and by number."""
  root = tmp_path_factory.mktemp("sets")
  common = ["Ada Lovelace", "07201", "\u0930\u093e\u092e\u093e"]
  first = [*common, *(f"First{n}" for n in range(9))]
  second = ["ada_lovelace", "7201", "\u0930\u0940\u092e\u093e"]
  second += [f"Second{n}" for n in range(9)]
  for name, people in (("first", first), ("second", second)):
    files = {f"{p}/{i}.jpg": fake_sets.jpeg(i) for p in people for i in (0, 1)}
    source = fake_sets.tree(root / name, files)
    lines = [f"{p}\t{'train' if name == 'first' else 'test'}" for p in people]
    partition = root / f"{name}.txt"
    partition.write_text("\n".join(lines) + "\n")
    catalogue.prepare(
      "folder",
      catalogue.Options(source, partition=partition),
      data_dir=str(root / "data"),
    )
  return str(root / "data")


@pytest.mark.parametrize("order", ["first,second", "second,first"])
def test_several_sets_with_commas(prepared, order):
  config = config_lib.default_config().dataset
  names = ",".join(f"folder/{name}" for name in order.split(","))
  config.update(data_dir=prepared, name=names, num_validation=2)
  data = sets.load(config, image_size=8)
  # One number is one person, who is held out in both. A name in another
  # spelling is told; one of another script that differs by a vowel is not.
  seen = sets.seen_in_training(data)
  validated = {str(data.faces.names[p]) for p in data.validation}
  assert set(seen) == {"ada_lovelace"} - validated
  assert not {"07201", "7201"} & {str(data.faces.names[p]) for p in data.train}


def overlapping(config, image_size):
  """A data set that tests on a person it trains on."""
  return sets.DataSet(tiny.Faces(image_size), (0, 1, 2, 3), (4, 5), test=(3, 6))


def test_training_warns_in_one_sentence(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(run.loop, "fit", _stop)
  for name, warned in (("tests.data.seen_test:overlapping", 1), (None, 0)):
    config = tiny.config(dataset__name=name or "tests.tiny:load")
    try:
      run.train(config, tmp_path / str(warned))
    except KeyboardInterrupt:
      pass
    err = capsys.readouterr().err
    assert err.count("warning: ") == warned and err.count("\n") == warned
    assert not warned or "1 people" in err and "person3" in err


def _stop(*args, **kwargs):
  raise KeyboardInterrupt
