"""The verb `prepare`: what it prints, and what it refuses."""

import pytest

from facesiam_jax.cli import main
from tests.data import fake_sets


def _run(capsys, *args):
  status = main.main(["prepare", *map(str, args)])
  out, err = capsys.readouterr()
  return status, out, err


def test_a_folder(tmp_path, capsys):
  source = fake_sets.tree(tmp_path / "x", fake_sets.people(5, 3))
  (source / "person3" / "1.jpg").write_bytes(b"")
  words = ["--dataset=folder", f"--manual_dir={source}"]
  words += [f"--data_dir={tmp_path / 'data'}", "--num_validation=1"]
  words += ["--num_test=1"]
  for _ in range(2):
    status, out, _ = _run(capsys, *words)
    assert status == 0
    assert "folder/x is ready in" in out and "14 images of 5 people" in out
    assert "Left out: 1 images that are empty (0 bytes) (person3/1.jpg)" in out
    assert "--config.dataset.name=folder/x" in out
  status, out, err = _run(capsys, *words, "--strict", "--size=16")
  assert status == 1 and "person3/1.jpg" in err and err.count("\n") == 1
  assert not (tmp_path / "data" / "folder" / "x_16").exists()


def test_celeba_and_lfw(tmp_path, capsys):
  rows = [row for row in fake_sets.celeba_rows() if row[2] != 1]
  root = fake_sets.celeba(tmp_path / "c", rows)
  data = f"--data_dir={tmp_path / 'data'}"
  status, out, _ = _run(
    capsys, "--dataset=celeba_identity", f"--manual_dir={root}", data
  )
  assert status == 0 and "The validation partition has no image here." in out
  root = fake_sets.lfw(tmp_path / "l")
  (root / "people.txt").unlink()
  (root / "lfw" / "Emmy" / "Emmy_0001.jpg").write_bytes(b"x")
  status, out, _ = _run(capsys, "--dataset=lfw", f"--manual_dir={root}", data)
  assert status == 0
  assert "Protocol view2: 3 pairs, 2 of one person, 2 folds." in out
  assert "Not there: people.txt." in out
  assert "images of the protocol view2 that are not there" in out


@pytest.mark.parametrize(
  "words, match",
  [
    (["--dataset=nothing", "--manual_dir=."], "celeba_identity"),
    (["--dataset=lfw"], "--manual_dir is required"),
    (["--dataset=folder", "--manual_dir=nowhere"], "does not exist"),
    (["--dataset=folder", "--manual_dir=.", "--size=4"], "--size"),
    (["--dataset=folder", "--manual_dir=.", "--variant=../x"], "--variant"),
    (["--dataset=folder", "--manual_dir=.", "--num_test=-1"], "--num_test"),
    (["--dataset=lfw", "--manual_dir=.", "--num_test=1"], "--num_test"),
    (["--dataset=lfw", "--manual_dir=.", "--variant=x"], "--variant"),
    (["--dataset=cfp", "--manual_dir=.", "--alignment=x"], "--alignment"),
    (["--dataset=folder", "--manual_dir=.", "--partition=no.txt"], "no.txt"),
    (["--dataset=folder", "--manual_dir=."], "<person>/<image>"),
  ],
)
def test_one_sentence_names_what_is_wrong(
  tmp_path, monkeypatch, capsys, words, match
):
  monkeypatch.chdir(tmp_path)
  status, out, err = _run(capsys, *words, "--data_dir=data")
  assert status == 1 and match in err and err.count("\n") == 1 and not out
  assert not (tmp_path / "data").exists()


def test_words_are_refused(capsys):
  assert _run(capsys, "--dataset=olivetti", "more")[0] == 2
