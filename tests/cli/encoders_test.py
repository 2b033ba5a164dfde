"""Tests of `facesiam encoders`."""

import json

import pytest

from facesiam_jax.cli import main
from facesiam_jax.encoders import catalogue


@pytest.fixture
def few(monkeypatch):
  """Three encoders of the catalogue, for speed."""
  kept = ("article_cnn", "resnet18", "mobilefacenet")
  entries = {name: catalogue.ENTRIES[name] for name in kept}
  monkeypatch.setattr(catalogue, "ENTRIES", entries)
  return entries


def test_table(few, capsys):
  assert main.main(["encoders"]) == 0
  out, err = capsys.readouterr()
  assert err == ""
  header, *rows = out.splitlines()
  for word in ("name", "input", "embedding", "parameters", "multiply-adds"):
    assert word in header
  assert [row.split()[0] for row in rows] == list(few)
  assert rows[1].split()[1:5] == ["112x112x3", "256", "11.31", "484.98"]
  assert rows[1].endswith(few["resnet18"].weights)


def test_json(few, capsys):
  assert main.main(["encoders", "--json"]) == 0
  listed = json.loads(capsys.readouterr().out)
  assert [entry["name"] for entry in listed] == list(few)
  assert listed[0] == {
    "name": "article_cnn",
    "input": [64, 64, 1],
    "dim": 128,
    "parameters": 320 + 18_496 + 73_856 + (8 * 8 * 128 + 1) * 128,
    "multiply_adds": 64**2 * 9 * 32
    + 32**2 * 9 * 32 * 64
    + 16**2 * 9 * 64 * 128
    + 8 * 8 * 128 * 128,
    "known_weights": "none published",
  }


def test_takes_no_words(capsys):
  assert main.main(["encoders", "resnet50"]) == 2
  assert "flags only, got 'resnet50'" in capsys.readouterr().err
