"""Photos under another framing: which images are one photo."""

import cv2
import numpy as np
import pytest

from facesiam_jax.evaluation.audit import copies


def _photos(count=6, seed=0, side=96):
  """Smooth noise, as faces are; large, to be cut."""
  rng = np.random.default_rng(seed)
  photos = []
  for _ in range(count):
    layers = [
      cv2.resize(rng.normal(size=(n, n)), (side, side), interpolation=2) / n
      for n in (4, 8, 16)
    ]
    photo = sum(layers)
    photo = (photo - photo.min()) / (photo.max() - photo.min())
    photos.append(np.rint(30 + 190 * photo).astype(np.uint8))
  return photos


def _small(photo):
  return cv2.resize(photo, (32, 32), interpolation=cv2.INTER_AREA)


def _jpeg(photo):
  data = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
  return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


CHANGES = {
  "same": lambda p: p,
  "jpeg": _jpeg,
  "dark": lambda p: (p * 0.6 + 10).astype(np.uint8),
  "small": lambda p: cv2.resize(p, (40, 40), interpolation=cv2.INTER_AREA),
  "cut": lambda p: p[8:-8, 8:-8],
  "cut aside": lambda p: p[2:-12, 10:-4],
  "mirrored": lambda p: np.ascontiguousarray(p[:, ::-1]),
  "mirrored, cut, jpeg": lambda p: _jpeg(p[6:-6, 6:-6])[:, ::-1].copy(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_photo_is_a_copy_and_others_are_not(name):
  photos = _photos(3)
  a = np.stack([_small(p) for p in photos])
  b = np.stack([_small(CHANGES[name](p)) for p in photos])
  pairs = np.stack(np.indices((3, 3)), axis=-1).reshape(-1, 2)
  found = copies.confirm(pairs, a, b)
  assert sorted((c.i, c.j) for c in found) == [(n, n) for n in range(3)]
  assert all(c.mirrored == name.startswith("mirrored") for c in found)


def test_a_photo_of_the_same_with_another_mouth_is_none():
  photos = _photos()
  a = np.stack([_small(p) for p in photos])
  b = a.copy()
  b[:, 21:29, 9:23] = np.roll(b, 1, axis=0)[:, 21:29, 9:23]
  pairs = np.arange(6)[:, None].repeat(2, axis=1)
  assert copies.confirm(pairs, a, b) == []
  plain = [
    np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)
  ]
  assert max(plain) > 0.9


def test_degenerate_images_are_nobodys_copies():
  flat = np.full((2, 32, 32), 90, np.uint8)
  pairs = np.array([[0, 1]])
  assert copies.confirm(pairs, flat, flat) == []
  assert copies.confirm(np.zeros((0, 2), int), flat, flat) == []
  other = np.stack([_small(p) for p in _photos(2)])
  assert copies.confirm(pairs, flat, other) == []


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("inside", [True, False])
def test_nearest_are_those_of_all_pairs(metric, inside):
  rng = np.random.default_rng(0)
  a = rng.normal(size=(30, 8)).astype(np.float32)
  b = a if inside else rng.normal(size=(40, 8)).astype(np.float32)
  if metric == "cosine":
    a = a / np.linalg.norm(a, axis=1, keepdims=True)
    b = b / np.linalg.norm(b, axis=1, keepdims=True)
  wanted = set()
  for i, x in enumerate(a.astype(np.float64)):
    score = b.astype(np.float64) @ x
    if metric == "euclidean":
      score = -((b - x) ** 2).sum(axis=1)
    order = [j for j in np.argsort(-score) if not (inside and i == j)][:3]
    wanted |= {(min(i, j), max(i, j)) if inside else (i, j) for j in order}
  found = copies.nearest(a, None if inside else b, metric)
  assert list(map(tuple, found)) == sorted(wanted)
  none = np.zeros((0, 8), np.float32)
  assert len(copies.nearest(none, b, metric)) == 0
  assert len(copies.nearest(a, none, metric)) == 0
  assert len(copies.nearest(a[:1], None, metric)) == 0


def test_only_what_is_nearer_than_one_person_is_looked_at():
  rng = np.random.default_rng(1)
  e = rng.normal(size=(12, 5)).astype(np.float32)
  who = np.array([0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 4, 5])
  each = []
  for p in (0, 1, 3):
    rows = np.flatnonzero(who == p)
    each.append(
      np.mean([((e[i] - e[j]) ** 2).sum() for i in rows for j in rows if i < j])
    )
  typical = copies.typical_sq(e, who)
  assert typical == pytest.approx(np.mean(each), rel=1e-6)
  pairs = np.stack(np.triu_indices(12, 1), axis=1)
  kept = copies.near(pairs, e, e, typical)
  wanted = [
    (i, j)
    for i, j in pairs.tolist()
    if ((e[i] - e[j]) ** 2).sum() <= copies.NEAR * typical
  ]
  assert 0 < len(wanted) < 40 and list(map(tuple, kept.tolist())) == wanted
  alone = copies.typical_sq(e, np.arange(12))
  assert np.isnan(alone) and len(copies.near(pairs, e, e, alone)) == len(pairs)
