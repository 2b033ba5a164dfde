"""How much of what is planted an audit finds, and what it tells of besides.

Needs the data sets of ../shared/data, prepared, and dlib's network as a bundle:

  facesiam prepare --dataset=folder --manual_dir=celeba_wild112.tar \\
    --partition=list_eval_partition.txt --alignment=arcface_112
  (likewise pins112.tar without --partition, and celeba_identity)
  facesiam import --from=dlib --bundle=dlib
  python benchmarks/audit.py --bundle=dlib --work=work \\
    --out=benchmarks/results/audit.json

People of one set under two names: some are split in two, with so many images
each. People known to be two: those of CelebA's official training and those of
its test partition, also across its two releases. Labels: images are moved to
another person. Copies: images are cut, mirrored, scaled, compressed, darkened
and embedded anew, and looked for among those they were made of; 313 images are
in both releases of CelebA, aligned in two ways. --work keeps the embeddings.

Whatever is told of and was not planted counts as false, though some of it is
true: these data sets have such faults of their own. The rule, not a level, is
fixed in `evaluation/audit/people.py`: what chance does is counted anew in each
comparison, so that nothing was fitted to these people.
"""

import dataclasses
import io
import os
import pathlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import PIL.Image
from absl import app, flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import outcome

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.data import encoded, names
from facesiam_jax.evaluation.audit import (
  copies,
  findings,
  frames,
  hashing,
  people,
  reading,
)
from facesiam_jax.faces import photo

_DATA_DIR = flags.DEFINE_string("data_dir", None, "Prepared data sets.")
_BUNDLE = flags.DEFINE_string("bundle", None, "Embeds faces.", required=True)
_WORK = flags.DEFINE_string("work", None, "Keeps embeddings.", required=True)
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_PINS, _WILD, _MANUAL = (
  "folder/pins112",
  "folder/celeba_wild112",
  "celeba_identity",
)
_COPIED, _MOVED, _SPLIT, _REPEATS = 150, 100, 20, 5


def _load(name: str, bundle: bundle_lib.Bundle) -> reading.Images:
  """Reads a data set with embeddings, which are kept."""
  source = reading.open_source(name, _DATA_DIR.value, "")
  path = pathlib.Path(_WORK.value) / f"{name.replace('/', '_')}.npz"
  if not path.exists():
    images = reading.read(source, reading.COMMON, bundle)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, embeddings=images.embeddings, of=bundle.fingerprint)
    return images
  images = reading.read(source, reading.COMMON, None)
  with np.load(path) as file:
    assert str(file["of"]) == bundle.fingerprint, f"{path}: another bundle"
    return dataclasses.replace(images, embeddings=file["embeddings"])


def _tell(found: list[people.Alike], planted: set[tuple[int, int]]) -> Any:
  """Counts (hits, others) of the sure ones and of all that is told."""
  count = {}
  for grade, most in (("sure", people.SURE), ("told", people.LOOK)):
    pairs = {(p.i, p.j) for p in found if p.expected <= most}
    count[grade] = len(pairs & planted), len(pairs - planted)
  return count


def _split_people(images: reading.Images, each: int) -> dict[str, Any]:
  """Puts people of a set under two names, `each` images a name."""
  rng = np.random.default_rng(each)
  total = {"planted": 0, "sure": [0, 0], "told": [0, 0], "pairs": 0}
  num = len(images.people)
  for _ in range(_REPEATS):
    many = np.flatnonzero(np.bincount(images.person) >= 2 * each)
    who, planted = images.person.astype(np.int64), set()
    use = np.ones(len(who), bool)
    chosen = rng.choice(many, min(_SPLIT, len(many)), replace=False)
    for new, person in enumerate(chosen.tolist()):
      rows = rng.permutation(np.flatnonzero(images.person == person))
      who[rows[:each]] = num + new
      use[rows[2 * each :]] = False
      planted.add((person, num + new))
    sums = people.summarise(images.embeddings[use], who[use], num + len(chosen))
    found, chance = people.alike(sums)
    total["planted"] += len(planted)
    total["pairs"] += chance.pairs
    for grade, counted in _tell(found, planted).items():
      total[grade] = [a + b for a, b in zip(total[grade], counted, strict=True)]
  return total


def _part(images: reading.Images, split: str) -> people.People:
  """Sums up the people of an official partition."""
  source = dataclasses.replace(images.source, split=split)
  some = {row.person for row in source.rows()}
  chosen = np.isin(images.person, [
    n for n, name in enumerate(images.people) if name in some
  ])  # fmt: skip
  _, who = np.unique(images.person[chosen], return_inverse=True)
  return people.summarise(images.embeddings[chosen], who, len(some))


def _different(a: people.People, b: people.People) -> dict[str, Any]:
  found, chance = people.alike(a, b)
  counted = _tell(found, set())
  return {"pairs": chance.pairs, **{k: v[1] for k, v in counted.items()}}


def _across(wild: reading.Images, manual: reading.Images) -> dict[str, Any]:
  """The people of one number in both releases, by likeness alone."""
  sums = [
    people.summarise(x.embeddings, x.person, len(x.people))
    for x in (wild, manual)
  ]
  planted = set(names.same_names(wild.people, manual.people))
  found, chance = people.alike(*sums)
  result = {"pairs": chance.pairs, "planted": len(planted)}
  few = sums[1].num_images
  for least in (1, 2, 3):
    some = {(i, j) for i, j in planted if int(few[j]) >= least}
    hits = {g: v[0] for g, v in _tell(found, some).items()}
    result[f"with {least} images or more"] = {"planted": len(some)} | hits
  return result | {
    "others": {g: v[1] for g, v in _tell(found, planted).items()}
  }


def _moved(images: reading.Images) -> dict[str, Any]:
  """Puts images under the name of another."""
  rng = np.random.default_rng(0)
  who = images.person.astype(np.int64)
  count = np.bincount(who)
  before, _ = people.suspects(images.embeddings, who, len(count))
  rows = rng.choice(np.flatnonzero(count[who] >= 5), _MOVED, replace=False)
  goal = rng.choice(np.flatnonzero(count >= 4), _MOVED)
  goal = np.where(goal == who[rows], np.roll(goal, 1), goal)
  moved = who.copy()
  moved[rows] = goal
  found, _ = people.suspects(images.embeddings, moved, len(count))
  planted = [s for s in found if s.row in set(rows.tolist())]
  sure = [s for s in planted if (s.expected or 0) <= people.SURE]
  return {
    "planted": _MOVED,
    "told": len(planted),
    "sure": len(sure),
    "sure of the right person": sum(s.other == int(who[s.row]) for s in sure),
    "told without planting": len(before),
    "sure without planting": sum(
      (s.expected or 0) <= people.SURE for s in before
    ),
    "images": len(who),
  }


def _cut(side: float, right: int = 0, down: int = 0) -> Callable[..., Any]:
  def change(pixels: np.ndarray) -> np.ndarray:
    size = len(pixels)
    keep = round(size * side)
    top = min(max((size - keep) // 2 + down, 0), size - keep)
    left = min(max((size - keep) // 2 + right, 0), size - keep)
    return cv2.resize(
      pixels[top : top + keep, left : left + keep], (size, size),
      interpolation=cv2.INTER_CUBIC,
    )  # fmt: skip

  return change


def _jpeg(quality: int) -> Callable[..., Any]:
  def change(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))

  return change


def _scaled(pixels: np.ndarray) -> np.ndarray:
  small = cv2.resize(pixels, (48, 48), interpolation=cv2.INTER_AREA)
  return cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_CUBIC)


_CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  "JPEG quality 20": _jpeg(20),
  "0.6 times as bright": lambda p: (p * 0.6 + 10).astype(np.uint8),
  "scaled to 48 pixels": _scaled,
  "mirrored": lambda p: np.ascontiguousarray(p[:, ::-1]),
  "middle 90 %": _cut(0.9),
  "middle 80 %": _cut(0.8),
  "80 % off the middle": _cut(0.8, 8, -6),
  "middle 70 %": _cut(0.7),
  "mirrored, 85 %, JPEG 40": lambda p: _jpeg(40)(
    _cut(0.85, 4, 4)(np.ascontiguousarray(p[:, ::-1]))
  ),
}


def _planted_copies(
  images: reading.Images, bundle: bundle_lib.Bundle
) -> dict[str, Any]:
  """Looks for changed images among all that they may be made of."""
  rng = np.random.default_rng(0)
  rows = np.sort(rng.choice(len(images.files), _COPIED, replace=False))
  places = set(images.places[rows].tolist())
  pixels = [
    photo.to_rgb(encoded.decode(row.data))
    for place, row in enumerate(images.source.rows())
    if place in places
  ]
  typical = copies.typical_sq(images.embeddings, images.person)
  result = {}
  for name, change in _CHANGES.items():
    changed = [change(p) for p in pixels]
    at = images.source.alignment, bundle.alignment, bundle.input_size[0]
    e = bundle.embed(np.stack([frames.frame(p, *at) for p in changed]))
    small = np.stack([
      frames.frame(photo.to_gray(p), at[0], reading.COMMON, hashing.SIDE)
      for p in changed
    ])  # fmt: skip
    by_hash = set()
    for hashes in (images.hashes, images.mirrored):
      near = hashing.near_pairs(hashing.phash(small), hashes, findings.MOST)
      by_hash |= set(zip(near.i.tolist(), near.j.tolist(), strict=True))
    pairs = copies.nearest(e, images.embeddings, bundle.metric)
    pairs = copies.near(pairs, e, images.embeddings, typical)
    found = copies.confirm(pairs, small, images.small)
    both = by_hash | {(c.i, c.j) for c in found}
    own = set(enumerate(rows.tolist()))
    result[name] = {
      "planted": _COPIED,
      "by hash": len(by_hash & own),
      "by hash or embedding": len(both & own),
      "of others of the person": sum(
        int(images.person[j]) == int(images.person[rows[i]])
        for i, j in both - own
      ),
      "of other people": sum(
        int(images.person[j]) != int(images.person[rows[i]])
        for i, j in both - own
      ),
    }
    print(name, result[name], flush=True)
  return result


def _two_releases(
  wild: reading.Images, manual: reading.Images, metric: str
) -> dict[str, Any]:
  """Looks for the images that both releases of CelebA have."""
  number = {f.split("/")[-1]: j for j, f in enumerate(manual.files)}
  own = {
    (i, number[f.split("/")[-1]])
    for i, f in enumerate(wild.files)
    if f.split("/")[-1] in number
  }
  near = hashing.near_pairs(wild.hashes, manual.hashes, findings.MOST)
  by_hash = set(zip(near.i.tolist(), near.j.tolist(), strict=True))
  pairs = copies.nearest(wild.embeddings, manual.embeddings, metric)
  typical = copies.typical_sq(wild.embeddings, wild.person)
  kept = copies.near(pairs, wild.embeddings, manual.embeddings, typical)
  found = {(c.i, c.j) for c in copies.confirm(kept, wild.small, manual.small)}
  candidates = set(map(tuple, pairs.tolist()))
  closer = set(map(tuple, kept.tolist()))
  return {
    "in both": len(own),
    "by hash": len(own & by_hash),
    "among the nearest": len(own & candidates),
    "and near enough": len(own & closer),
    "nearest pairs": len(candidates),
    "near enough": len(closer),
    "by hash or embedding": len(own & (found | by_hash)),
    "others": len((found | by_hash) - own),
  }


def main(argv: list[str]) -> None:
  del argv
  bundle = bundle_lib.load(_BUNDLE.value)
  pins, wild, manual = (_load(name, bundle) for name in (_PINS, _WILD, _MANUAL))
  result: dict[str, Any] = outcome.environment(
    ["jax", "opencv-python-headless"]
  )
  result["fingerprint of the bundle"] = bundle.fingerprint
  result["one person under two names"] = {
    name: {
      f"{each} images each": _split_people(images, each)
      for each in (1, 2, 3, 5, 10)
    }
    for name, images in ((_PINS, pins), (_WILD, wild))
  }
  test = _part(wild, "test")
  result["people known to be two"] = {
    f"{_WILD}: training against test": _different(_part(wild, "train"), test),
    f"{_MANUAL} against {_WILD}:test": _different(_part(manual, "train"), test),
  }
  result["people of one number in two releases"] = _across(wild, manual)
  result["images under a wrong name"] = {
    name: _moved(images)
    for name, images in ((_PINS, pins), (_WILD, wild), (_MANUAL, manual))
  }
  outcome.write(_OUT.value, result)
  result["images in two releases"] = _two_releases(wild, manual, bundle.metric)
  result["copies"] = _planted_copies(wild, bundle)
  outcome.write(_OUT.value, result)
  print(result)


if __name__ == "__main__":
  app.run(main)
