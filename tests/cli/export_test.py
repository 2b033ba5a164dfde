"""Tests of `facesiam export`."""

import jax.export
import numpy as np

from facesiam_jax.cli import main
from tests import colour_bundle


def test_export(tmp_path, capsys):
  bundle = colour_bundle.save(tmp_path / "bundle")
  file = tmp_path / "faces.stablehlo"
  argv = ["export", f"--bundle={tmp_path / 'bundle'}", f"--out={file}"]
  assert main.main([*argv, "--format=stablehlo"]) == 0
  out = capsys.readouterr().out
  assert "uint8 [B, 8, 8, 3] to float32 [B, 12]" in out and "tpu" in out
  faces = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
  exported = jax.export.deserialize(bytearray(file.read_bytes()))
  np.testing.assert_allclose(
    exported.call(faces), bundle.embed(faces), atol=1e-5
  )


def test_what_cannot_be_exported(tmp_path, capsys):
  colour_bundle.save(tmp_path / "bundle")
  for bundle, out, words in (
    ("none", "a", "is not a model bundle"),
    ("bundle", "none/a", "make its folder"),
  ):
    argv = [
      "export",
      f"--bundle={tmp_path / bundle}",
      f"--out={tmp_path / out}",
    ]
    assert main.main(argv) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err
    assert captured.err.count("\n") == 1
  assert not (tmp_path / "a").exists()
