"""Tests of facesiam_jax.gallery.gallery."""

import subprocess
import sys

import numpy as np
import pytest

import facesiam_jax
from facesiam_jax import errors
from facesiam_jax.gallery import gallery as gallery_lib
from tests.gallery.fake_bundle import FakeBundle, faces

METRICS = pytest.mark.parametrize("metric", ["cosine", "euclidean"])


def _open(tmp_path, bundle, **options):
  return gallery_lib.Gallery.open(
    tmp_path / "g.db", bundle, create=True, **options
  )


def _noisy(images, seed):
  rng = np.random.default_rng(seed)
  noise = rng.integers(-9, 10, images.shape)
  return np.clip(images.astype(int) + noise, 0, 255).astype(np.uint8)


@METRICS
def test_people_are_found_and_strangers_are_unknown(tmp_path, metric):
  bundle = FakeBundle(metric)
  people = {f"P{i:02}": faces(3, i) for i in range(20)}
  with _open(tmp_path, bundle) as gallery:
    assert gallery.enroll_people(people).templates == 60
    probes = np.concatenate([_noisy(people["P07"][1:2], 1), faces(1, 99)])
    known, unknown = gallery.identify(probes, k=4)
  assert known.name == "P07" and known.matches[0].name == "P07"
  assert [m.accepted for m in known.matches] == [True, False, False, False]
  assert len({m.name for m in known.matches}) == 4
  assert unknown.name is None and len(unknown.matches) == 4
  for found in (known, unknown):
    logits = np.array([m.logit for m in found.matches])
    assert (np.diff(logits) <= 0).all()
    probabilities = [m.probability for m in found.matches]
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), 1e-5)


@METRICS
def test_a_persons_score_is_their_best_template(tmp_path, metric):
  # More templates than the first look takes in, nearly all of one person.
  bundle = FakeBundle(metric)
  crowd = faces(300, 1)
  probe = crowd[:1]
  near = _noisy(np.repeat(probe, 280, axis=0), 1)
  with _open(tmp_path, bundle) as gallery:
    gallery.enroll("Many", near)
    for i in range(1, 9):
      gallery.enroll(f"P{i}", crowd[i : i + 1])
    (found,) = gallery.identify(probe, k=9)
    assert gallery.people()["Many"] == 280
  rows = bundle.embed(np.concatenate([near, crowd[1:9]])).astype(np.float64)
  query = bundle.embed(probe)[0].astype(np.float64)
  if metric == "cosine":
    scores = rows @ query
  else:
    scores = -np.square(rows - query).sum(axis=1)
  best = {"Many": scores[:280].max()}
  best |= {f"P{i}": scores[279 + i] for i in range(1, 9)}
  want = sorted(best, key=lambda name: -best[name])
  assert [match.name for match in found.matches] == want
  want_logits = bundle.logits_from_scores(np.array([best[n] for n in want]))
  logits = [match.logit for match in found.matches]
  np.testing.assert_allclose(logits, want_logits, atol=1e-3)


def test_equal_scores_go_to_whoever_came_first(tmp_path):
  bundle = FakeBundle("euclidean")
  rows = np.eye(64, dtype=np.float32)
  with _open(tmp_path, bundle) as gallery:
    gallery.enroll("Zoe", embeddings=rows[:1])
    gallery.enroll("Ada", embeddings=-rows[:1])
    (found,) = gallery.identify(embeddings=np.zeros((1, 64)))
  assert [match.name for match in found.matches] == ["Zoe", "Ada"]
  assert found.matches[0].logit == found.matches[1].logit


def test_results_do_not_depend_on_the_batch(tmp_path):
  bundle = FakeBundle()
  people = {f"P{i}": faces(2, i) for i in range(9)}
  probes = np.concatenate([_noisy(rows, 3) for rows in people.values()])
  with _open(tmp_path, bundle) as gallery:
    gallery.enroll_people(people)
    together = gallery.identify(probes)
    assert together == [gallery.identify(p[None])[0] for p in probes]


def test_empty_gallery_and_no_probe(tmp_path):
  with _open(tmp_path, FakeBundle()) as gallery:
    assert gallery.people() == {}
    assert gallery.identify(faces(2, 0)) == [(None, ()), (None, ())]
    assert gallery.enroll_people({}) == (0, [])
    gallery.enroll("Ada", faces(1, 0))
    assert gallery.identify(faces(0, 0)) == []
    (found,) = gallery.identify(faces(1, 0), k=5)
    assert [match.name for match in found.matches] == ["Ada"]


def test_changes_are_seen_at_once(tmp_path):
  bundle, ada, bob = FakeBundle(), faces(1, 1), faces(1, 2)
  with _open(tmp_path, bundle) as gallery, _open(tmp_path, bundle) as other:
    gallery.enroll("Ada", ada)
    assert gallery.identify(bob)[0].name is None
    other.enroll("Bob", bob)
    assert gallery.identify(bob)[0].name == "Bob"
    index = gallery._index
    assert gallery.identify(ada)[0].name == "Ada"
    assert gallery._index is index
    assert other.remove("Ada") == 1
    assert gallery.identify(ada)[0].name is None


def test_the_same_photo_is_kept_once(tmp_path):
  with _open(tmp_path, FakeBundle()) as gallery:
    gallery.enroll("Ada", faces(3, 1))
    assert gallery.enroll("Ada", faces(3, 1)) == (
      0,
      ["image 0 of Ada", "image 1 of Ada", "image 2 of Ada"],
    )
    with pytest.raises(errors.UserError, match="enrolled as 'Ada'"):
      gallery.enroll("Bob", faces(3, 1))
    assert gallery.people() == {"Ada": 3}


def test_another_bundle_is_refused(tmp_path):
  with _open(tmp_path, FakeBundle()):
    pass
  for create in (True, False):
    with pytest.raises(errors.UserError, match="another bundle"):
      gallery_lib.Gallery.open(
        tmp_path / "g.db", FakeBundle(fingerprint="b" * 64), create=create
      )
  with pytest.raises(errors.UserError, match="no such gallery"):
    gallery_lib.Gallery.open(tmp_path / "none.db", FakeBundle())


def test_wrong_calls(tmp_path):
  with _open(tmp_path, FakeBundle()) as gallery:
    with pytest.raises(ValueError, match="either"):
      gallery.enroll("Ada")
    with pytest.raises(ValueError, match="either"):
      gallery.identify(faces(1, 1), embeddings=np.zeros((1, 64)))
    with pytest.raises(ValueError, match="k >= 1"):
      gallery.identify(faces(1, 1), k=0)
    with pytest.raises(errors.UserError, match="face 1 is not finite"):
      gallery.identify(embeddings=[[0.0] * 64, [np.nan] * 64])


def test_overflowing_scores_match_nobody(tmp_path):
  with _open(tmp_path, FakeBundle("euclidean")) as gallery:
    gallery.enroll("Ada", embeddings=np.full((1, 64), 1e30))
    assert gallery.identify(faces(1, 1)) == [(None, ())]


def test_the_package_offers_it():
  assert facesiam_jax.Gallery is gallery_lib.Gallery
  assert "Gallery" in dir(facesiam_jax)
  with pytest.raises(AttributeError, match="no attribute 'Galery'"):
    _ = facesiam_jax.Galery


@pytest.mark.parametrize(
  "statement, absent",
  [
    ("import facesiam_jax", ["jax", "numpy", "absl"]),
    ("import facesiam_jax.gallery.search", ["sqlite3", "flax", "cv2"]),
    (
      "import facesiam_jax.gallery.gallery",
      ["flax", "orbax", "cv2", "matplotlib"],
    ),
  ],
)
def test_imports_stay_light(statement, absent):
  code = f"{statement}; import sys; print(set({absent}) & set(sys.modules))"
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert result.stdout == "set()\n"


@pytest.mark.parametrize("metric", ["l1", "head"])
def test_heads_that_no_search_ranks_by_are_refused(tmp_path, metric):
  path = tmp_path / "g.db"
  with pytest.raises(errors.UserError, match=f"by '{metric}'"):
    gallery_lib.Gallery.open(path, FakeBundle(metric), create=True)
  assert not path.exists()
