"""Recognisers on 58 people of CelebA nobody was trained on: the README's table.

  F="facesiam prepare --data_dir=DATA"
  $F --dataset=folder --manual_dir=celeba_wild112.tar \\
    --partition=celeba_manual/list_eval_partition.txt --num_validation=40 \\
    --alignment=arcface_112
  $F --dataset=folder --manual_dir=pins112.tar --num_validation=0 \\
    --num_test=0 --alignment=arcface_112
  $F --dataset=celeba_identity --manual_dir=celeba_manual --size=64 \\
    --alignment=arcface_112
  facesiam import --from=dlib --bundle=dlib
  python benchmarks/celeba.py --data_dir=DATA --dlib=dlib \\
    --system="Ours=runs/celeba" --out=benchmarks/results/celeba.json \\
    --picture=docs/celeba.png

Raw pixels, fisherfaces fitted on the recipes' own training people, dlib's
network and any bundle or workdir on the same faces. Verification, triplets and
one-shot identification: the test people's faces of 112 pixels. Identification
among 500 and 2,000 people: `celeba_people.distractors` fill the gallery up, and
all faces have 64 pixels. That a distractor is not told by how its photo was
made is measured too: how well sharpness alone tells distractors from probes,
and rank-1 with photos of one and the same further people out of either file
(training people, so that it tells nothing of systems trained on them).
Whoever was trained on a test person or a distractor is refused. What --cache
holds is not embedded again.
"""

import json
import math
import os
import pathlib
import sys
import time
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import celeba_faces  # noqa: E402
import celeba_measures  # noqa: E402
import celeba_systems  # noqa: E402
import numpy as np  # noqa: E402
import outcome  # noqa: E402
from absl import app, flags, logging  # noqa: E402

from facesiam_jax import metrics  # noqa: E402
from facesiam_jax.evaluation import protocols  # noqa: E402

_DATA_DIR = flags.DEFINE_string(
  "data_dir", None, "Folder of the prepared sets.", required=True
)
_DLIB = flags.DEFINE_string("dlib", None, "Bundle of dlib's network.")
_SYSTEMS = flags.DEFINE_multi_string(
  "system", [], "NAME=PATH of a bundle or a workdir; may be repeated."
)
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_PICTURE = flags.DEFINE_string("picture", None, "PNG of the figure.")
_CACHE = flags.DEFINE_string("cache", "runs/celeba-cache", "Embeddings.")
_RESAMPLES = flags.DEFINE_integer(
  "resamples", 400, "Draws of people for the intervals of verification."
)
_PACKAGES = ("jax", "flax", "numpy", "scikit-learn", "opencv-python-headless")
_SIZES = (58, 100, 200, 500, 1000, 2000)
_SHOWN = (58, 500, 2000)
_FMR = np.logspace(-4, 0, 33)
_CHANCE = "Chance"


def _chance() -> dict[str, Any]:
  """What a score that says nothing gets."""
  whole = lambda value: {"value": value, "low": value, "high": value}
  return {
    "eer": whole(0.5),
    "triplet_accuracy": whole(0.5),
    "auc": whole(0.5),
    "tar_at_far_0.01": whole(0.01),
    "one_shot_accuracy": {"value": 1 / protocols.ONE_SHOT_WAYS},
    "rank_one": {str(size): whole(1 / size) for size in _SIZES},
    "roc": {"fmr": _FMR.tolist(), "tar": _FMR.tolist()},
  }


def _verification(similarity: np.ndarray, people: np.ndarray) -> dict[str, Any]:
  report = protocols.verification_report(
    similarity, people, None, resamples=_RESAMPLES.value
  )
  found: dict[str, Any] = {
    "triplet_accuracy": celeba_measures.triplet_accuracy(
      similarity, people
    )._asdict(),
    "one_shot_accuracy": {"value": report["one_shot_accuracy"]},
  }
  for name in ("eer", "auc", "tar_at_far_0.01"):
    low, high = report["interval"][name]
    found[name] = {"value": report[name], "low": low, "high": high}
  pairs = protocols.all_pairs(people)
  curve = metrics.roc(similarity[pairs.i, pairs.j], pairs.same)
  # The highest rate that is reached without going over each FMR.
  last = np.searchsorted(curve.fmr, _FMR, side="right") - 1
  found["roc"] = {"fmr": _FMR.tolist(), "tar": curve.tar[last].tolist()}
  return found


def _measured(
  system: celeba_systems.System, faces: celeba_faces.Faces
) -> dict[str, Any]:
  """Everything about one system."""
  begun, people = time.monotonic(), faces.test.names
  rows = system.embed(faces.test.images)
  found = _verification(system.compare(rows, rows), people)
  small = system.embed(celeba_faces.coarse(faces.test.images))
  similarity = system.compare(small, small)
  against = lambda images: system.compare(small, system.embed(images))
  needed = max(_SIZES) - min(_SIZES)
  ranked = lambda images, sizes: {
    str(size): estimate._asdict()
    for size, estimate in celeba_measures.rank_one(
      similarity, people, against(images), sizes
    ).items()
  }
  found["rank_one"] = ranked(faces.distractors.images[:needed], _SIZES)
  # The same further people from either file: only the photos' making differs.
  size = min(_SIZES) + len(faces.twice.names)
  found["rank_one_with_people_in_both_files"] = {
    "people": size,
    "from_celeba_wild112": ranked(faces.twice.images, [size])[str(size)],
    "from_celeba_manual": ranked(faces.again.images, [size])[str(size)],
  }
  return found | {"about": system.about, "seconds": time.monotonic() - begun}


def _systems(faces: celeba_faces.Faces) -> dict[str, celeba_systems.System]:
  data_dir, cache = _DATA_DIR.value, pathlib.Path(_CACHE.value)
  given = dict(text.split("=", 1) for text in _SYSTEMS.value)
  if _DLIB.value:
    given = {"dlib": _DLIB.value, **given}
  kept_out = celeba_faces.kept_out(faces)
  # Opened first: one that cannot be measured ends this at once.
  bundles = {
    name: celeba_systems.recogniser(
      pathlib.Path(path), data_dir, cache, kept_out
    )
    for name, path in given.items()
  }
  return {
    "Raw pixels": celeba_systems.pixels(),
    "Fisherfaces": celeba_systems.fisherfaces(data_dir),
    **bundles,
  }


def _facts(faces: celeba_faces.Faces) -> dict[str, Any]:
  needed = max(_SIZES) - min(_SIZES)
  probes = celeba_faces.coarse(faces.test.images)
  return {
    "test_people": len(np.unique(faces.test.names)),
    "test_images": len(faces.test.names),
    "distractors": len(faces.distractors.names),
    "distractor_sharper_than_probe": celeba_measures.told_apart(
      celeba_faces.sharpness(faces.distractors.images[:needed]),
      celeba_faces.sharpness(probes),
    ),
    "gallery_draws": celeba_measures.DRAWS,
    "resamples": celeba_measures.RESAMPLES,
    "resamples_of_verification": _RESAMPLES.value,
  }


def _cell(entry: dict[str, float], *, interval: bool) -> str:
  text = f"{100 * entry['value']:.1f}"
  low, high = entry.get("low", math.nan), entry.get("high", math.nan)
  if not interval or not low < high:
    return text
  return f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def table(systems: dict[str, dict[str, Any]]) -> str:
  """Returns the README's table, in Markdown, in per cent."""
  columns = {
    "EER": ("eer", True),
    "triplet accuracy": ("triplet_accuracy", True),
    "AUC": ("auc", False),
    "TAR at FMR 1 %": ("tar_at_far_0.01", False),
    "one-shot, 10-way": ("one_shot_accuracy", False),
  }
  ranks = [f"rank-1 of {size:,}" for size in _SHOWN]
  lines = [
    "| % | " + " | ".join([*columns, *ranks]) + " |",
    "|---|" + "---|" * (len(columns) + len(ranks)),
  ]
  for name, found in systems.items():
    cells = [_cell(found[k], interval=both) for k, both in columns.values()]
    cells += [
      _cell(found["rank_one"][str(size)], interval=True) for size in _SHOWN
    ]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  return "\n".join(lines)


def main(argv: list[str]) -> None:
  """Measures, prints the table, writes the results and the figure."""
  del argv
  # tfds tells of every file it opens.
  logging.set_verbosity(logging.WARNING)
  faces = celeba_faces.load(_DATA_DIR.value)
  measured = {_CHANCE: _chance()}
  for name, system in _systems(faces).items():
    measured[name] = _measured(system, faces)
    print(f"{name}: {measured[name]['seconds']:.0f} s", file=sys.stderr)
  print(table(measured))
  result = outcome.environment(_PACKAGES) | {
    **_facts(faces),
    "systems": measured,
  }
  result = json.loads(json.dumps(result))
  outcome.write(_OUT.value, result)
  if _PICTURE.value:
    import celeba_figure

    celeba_figure.draw(result["systems"], _PICTURE.value)


if __name__ == "__main__":
  app.run(main)
