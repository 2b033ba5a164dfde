"""Tests of facesiam_jax.export: reloaded in a process without Flax."""

import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest

from facesiam_jax import errors, export
from facesiam_jax.pretrained import importing, source, state_dict
from tests import colour_bundle
from tests.cli import pixel_bundle

# Only JAX and NumPy.
_RUN = """
import sys
import jax.export
import numpy as np
with open(sys.argv[1], "rb") as file:
  exported = jax.export.deserialize(bytearray(file.read()))
with np.load(sys.argv[2]) as file:
  faces = file["faces"]
done = {str(n): exported.call(faces[:n]) for n in (1, len(faces))}
np.savez(sys.argv[3], **done)
assert not {"flax", "facesiam_jax"} & set(sys.modules), "more than JAX"
print(*exported.platforms)
"""


def _convolutional(path):
  """A bundle with every layer that has a form of its own on CPU."""
  args = {"stage_sizes": [1, 1, 1, 1], "width": 4, "size": 32, "dim": 6}
  known = source.Source(
    encoder="mobilefacenet",
    args=args,
    size=32,
    channels=3,
    standardize={"kind": "fixed", "mean": [0.4, 0.5, 0.6], "std": 0.3},
    alignment="arcface_112",
    metric="euclidean",
    threshold=0.6,
    reference="",
    licence="",
  )
  rng = np.random.default_rng(0)
  shapes = state_dict.shapes_of(known)
  draw = lambda leaf: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32)
  return importing.write(path, known, jax.tree.map(draw, shapes))


@pytest.mark.parametrize(
  "make",
  [
    colour_bundle.save,
    pixel_bundle.save,
    pytest.param(_convolutional, marks=pytest.mark.slow),
  ],
)
def test_a_process_without_flax_embeds_alike(make, tmp_path):
  bundle = make(tmp_path / "bundle")
  file = tmp_path / "bundle.stablehlo"
  file.write_bytes(export.stablehlo(bundle))
  rng = np.random.default_rng(0)
  shape = (40, *bundle.input_size, bundle.channels)
  faces = rng.integers(0, 256, shape, np.uint8)
  np.savez(tmp_path / "faces.npz", faces=faces)
  paths = [str(file), str(tmp_path / "faces.npz"), str(tmp_path / "done.npz")]
  done = subprocess.run(
    [sys.executable, "-W", "ignore", "-c", _RUN, *paths],
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split() == ["cpu", "cuda", "rocm", "tpu"]
  expected = bundle.embed(faces)
  with np.load(tmp_path / "done.npz") as found:
    for count in (1, 40):
      embedded = found[str(count)]
      assert embedded.shape == (count, bundle.dim)
      assert embedded.dtype == np.float32
      scale = max(1.0, np.abs(expected).max())
      np.testing.assert_allclose(
        embedded / scale, expected[:count] / scale, atol=1e-5
      )


def test_a_missing_package_is_named(tmp_path, monkeypatch):
  bundle = colour_bundle.save(tmp_path / "bundle")

  def refuse(self, *args, **kwargs):
    raise ImportError("Please install 'flatbuffers'")

  monkeypatch.setattr(jax.export.Exported, "serialize", refuse)
  with pytest.raises(errors.UserError, match="pip install flatbuffers"):
    export.stablehlo(bundle)
