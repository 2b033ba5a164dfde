"""Faces found, missed and too many, and time, for each detector, on photos.

Needs the folder with photos.tar (112 photos, one known face each) and
celeba_wild112.tar, which holds each photo's known face cut out and aligned by
hand-checked landmarks; and, for the detectors dlib and dlib68, the extra dlib:

  python3 -m venv .venv-dlib
  .venv-dlib/bin/python -m pip install --editable '.[dlib]'
  FACESIAM_SHARED_DATA=../shared/data .venv-dlib/bin/python \\
    benchmarks/detectors.py --out=benchmarks/results/detectors.json

A face counts as found if, cut out and aligned as ArcFace's, it is the known one
but for an affine map (correlation at least 0.95 after it, found by ECC: right
faces reach 0.98, others at most 0.91); how far that map moves the five
landmarks is how badly the face was aligned. Every other face that is reported
is extra: a bystander, or no face at all; the contact sheets that
--sheets=FOLDER writes tell which. Times are of a photo, with the models loaded;
processor time is what a busy machine leaves almost as it is. A detector whose
extra or model is missing is left out.
"""

import collections
import io
import json
import os
import pathlib
import statistics
import tarfile
import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import outcome
from absl import app, flags
from PIL import Image, ImageDraw

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from facesiam_jax import alignment, errors  # noqa: E402
from facesiam_jax.faces import cutting, detectors, pixels  # noqa: E402

_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_YUNET = flags.DEFINE_string("yunet_model", None, "YuNet's ONNX file.")
_SHEETS = flags.DEFINE_string(
  "sheets", None, "Folder, outside the project, for contact sheets."
)
_PACKAGES = ("dlib-bin", "opencv-python-headless", "jax", "numpy")
_LIKE = 0.95
_BLUR = 9
_FARTHEST = 40
_TILE = 190
_COLUMNS = 12


def _data() -> pathlib.Path:
  given = os.environ.get("FACESIAM_SHARED_DATA")
  root = pathlib.Path(__file__).resolve().parents[1]
  return pathlib.Path(given) if given else root.parent / "shared" / "data"


def _pictures(name: str) -> Iterator[tuple[str, np.ndarray]]:
  """Yields (name inside, RGB pixels) of a tar of JPEGs."""
  with tarfile.open(_data() / name) as tar:
    for member in tar:
      file = tar.extractfile(member)
      if file is not None and member.name.endswith(".jpg"):
        picture = Image.open(io.BytesIO(file.read())).convert("RGB")
        yield member.name, np.array(picture)


def _photos() -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns name to photo and known face."""
  photos = dict(_pictures("photos.tar"))
  wanted = {os.path.basename(name): name for name in photos}
  known = {
    wanted[os.path.basename(name)]: face
    for name, face in _pictures("celeba_wild112.tar")
    if os.path.basename(name) in wanted
  }
  return {name: (photos[name], known[name]) for name in sorted(known)}


def _misplaced(face: np.ndarray, known: np.ndarray) -> float | None:
  """Says how far apart two aligned pictures of a face have its landmarks.

  Mean distance of ArcFace's five places in pixels of 112, by the affine map
  that makes the pictures most alike; None if nothing makes them alike.
  """
  warp = np.eye(2, 3, dtype=np.float32)
  stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 200, 1e-4)
  gray = [pixels.to_gray(image) for image in (known, face)]
  try:
    likeness, warp = cv2.findTransformECC(
      *gray, warp, cv2.MOTION_AFFINE, stop, None, _BLUR
    )
  except cv2.error:
    # It did not converge.
    return None
  places = 112 * alignment.TEMPLATES["arcface_112"].places["five"] - 0.5
  moved = places @ warp[:, :2].T + warp[:, 2]
  distance = float(np.hypot(*(moved - places).T).mean())
  return distance if likeness >= _LIKE and distance < _FARTHEST else None


def _one(
  detector: detectors.Detector, photo: np.ndarray, known: np.ndarray
) -> tuple[dict[str, float], list[detectors.Face]]:
  cpu, wall = time.process_time(), time.perf_counter()
  faces = detector(photo)
  spent = time.process_time() - cpu, time.perf_counter() - wall
  misplaced = [
    _misplaced(
      cutting.cut(photo, face, alignment="arcface_112", size=112), known
    )
    for face in faces
  ]
  known_ones = [distance for distance in misplaced if distance is not None]
  return {
    "faces": len(faces),
    "found": bool(known_ones),
    "misplaced": min(known_ones, default=np.nan),
    "cpu_ms": 1e3 * spent[0],
    "ms": 1e3 * spent[1],
  }, faces


def _sheet(
  folder: str, name: str, drawn: dict[str, tuple[Any, list[Any], bool]]
) -> None:
  """Draws all photos with their boxes, in red, and landmarks."""
  rows = -(-len(drawn) // _COLUMNS)
  sheet = Image.new("RGB", (_COLUMNS * _TILE, rows * _TILE))
  for n, (path, (photo, faces, found)) in enumerate(drawn.items()):
    tile = Image.fromarray(photo)
    pen, width = ImageDraw.Draw(tile), max(2, max(tile.size) // 100)
    for face in faces:
      left, top, across, down = face.box
      ends = (left, top, left + across, top + down)
      pen.rectangle(ends, outline="red", width=width)
      for x, y in face.eyes if face.landmarks is None else face.landmarks:
        ends = (x - width, y - width, x + width, y + width)
        pen.ellipse(ends, fill="lime")
    tile.thumbnail((_TILE - 4, _TILE - 4))
    label = f"{pathlib.Path(path).stem} {len(faces)}" + " missed" * (not found)
    ImageDraw.Draw(tile).text((2, 2), label, fill="yellow")
    sheet.paste(tile, (n % _COLUMNS * _TILE, n // _COLUMNS * _TILE))
  pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
  sheet.save(pathlib.Path(folder) / f"{name}.png")


def _measure(
  name: str, photos: dict[str, tuple[np.ndarray, np.ndarray]]
) -> dict[str, Any]:
  model = _YUNET.value if name == "yunet" else None
  detector = detectors.create(name, model=model)
  detector(next(iter(photos.values()))[0])
  results, drawn = {}, {}
  for path, (photo, known) in photos.items():
    results[path], faces = _one(detector, photo, known)
    drawn[path] = (photo, faces, results[path]["found"])
  if _SHEETS.value:
    _sheet(_SHEETS.value, name, drawn)
  found = [r for r in results.values() if r["found"]]
  return {
    "photos": len(results),
    "found": len(found),
    "missed": sorted(p for p, r in results.items() if not r["found"]),
    "extra": sum(r["faces"] - r["found"] for r in results.values()),
    "faces_in_a_photo": dict(
      sorted(collections.Counter(r["faces"] for r in results.values()).items())
    ),
    "median_misplaced": statistics.median(r["misplaced"] for r in found),
    "median_cpu_ms": statistics.median(r["cpu_ms"] for r in results.values()),
    "median_ms": statistics.median(r["ms"] for r in results.values()),
  }


def main(argv: list[str]) -> None:
  """Runs each detector that can be had, prints and writes what it found."""
  del argv
  photos = _photos()
  sides = [max(photo.shape[:2]) for photo, _ in photos.values()]
  result: dict[str, Any] = outcome.environment(_PACKAGES) | {
    "load_average": os.getloadavg()[0],
    "longer_side": {
      "smallest": min(sides),
      "median": statistics.median(sides),
      "largest": max(sides),
    },
    "detectors": {},
    "left_out": {},
  }
  for name in detectors.NAMES:
    try:
      result["detectors"][name] = _measure(name, photos)
    except errors.UserError as error:
      result["left_out"][name] = str(error)
  print(json.dumps(result, indent=1))
  outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
