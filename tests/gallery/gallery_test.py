"""Tests of facesiam_jax.gallery.gallery."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import facesiam_jax
from facesiam_jax import errors
from facesiam_jax.gallery import choice, enrolment, search
from facesiam_jax.gallery import gallery as gallery_lib
from facesiam_jax.gallery.records import Templates
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
    slots = gallery._index.slots
    assert gallery.identify(ada)[0].name == "Ada"
    assert gallery._index.slots is slots
    assert other.remove("Ada") == 1
    assert gallery.identify(ada)[0].name is None
    assert gallery.remove("Bob") == 1
    assert gallery.identify(ada) == [(None, ())]
    gallery.enroll("Ada", ada)
    assert gallery.identify(ada)[0].name == "Ada"


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


def _fused(scores, weights, fusion):
  """Returns the score of a person by the scores of their templates."""
  if fusion == "max":
    return scores.max()
  if fusion == "top2_mean":
    return np.sort(scores)[-2:].mean()
  return np.average(scores, weights=None if fusion == "mean" else weights)


@pytest.mark.parametrize(
  "metric, storage",
  [("cosine", "float32"), ("euclidean", "int8"), ("l1", "float32")],
)
def test_templates_are_weighed_by_their_quality(tmp_path, metric, storage):
  bundle, rng = FakeBundle(metric), np.random.default_rng(0)
  people = {f"P{i}": faces(1 + i % 4, i) for i in range(12)}
  weights = {n: rng.uniform(0.01, 1, len(rows)) for n, rows in people.items()}
  probes = np.concatenate([_noisy(people["P3"][1:2], 1), faces(6, 99)])
  with _open(tmp_path, bundle, storage=storage) as gallery:
    # Some at once, others one by one while the gallery is searched.
    early = {name: people[name] for name in list(people)[:6]}
    gallery.enroll_people(early, quality=weights)
    gallery.identify(probes)
    for name in list(people)[6:]:
      gallery.enroll(name, people[name], quality=weights[name])
    found = gallery.identify(probes, k=12, fusion="weighted_mean")
    records = gallery.store.records()
  queries = bundle.embed(probes).astype(np.float64)
  rows = records.embeddings.astype(np.float64)
  owners = [records.names[int(person)] for person in records.person_ids]
  if metric == "cosine":
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  answers = {fusion: 0 for fusion in search.RULES}
  for query, answer in zip(queries, found, strict=True):
    # The logits of `FakeBundle`.
    apart = query - rows
    logits = {
      "cosine": 20 * rows @ query - 10,
      "euclidean": 2 - 4 * np.sqrt((apart**2).sum(1)),
      "l1": 1 - np.abs(apart).sum(1),
    }[metric]
    own = {n: logits[[owner == n for owner in owners]] for n in people}
    got = {match.name: match.logit for match in answer.matches}
    assert list(got.values()) == sorted(got.values(), reverse=True)
    for fusion in search.RULES:
      want = {n: _fused(own[n], weights[n], fusion) for n in people}
      order = sorted(want, key=lambda name: -want[name])
      answers[fusion] += order == list(got) and np.allclose(
        [got[name] for name in order], [want[name] for name in order],
        atol=2e-4,
      )  # fmt: skip
  assert answers.pop("weighted_mean") == len(probes)
  assert set(answers.values()) == {0}, "another fusion gives the same"


def test_templates_of_unknown_quality_weigh_the_same(tmp_path):
  people = {f"P{i}": faces(1 + i % 4, i) for i in range(9)}
  with _open(tmp_path, FakeBundle()) as gallery:
    gallery.enroll_people(people)
    mean, weighted, best = (
      gallery.identify(faces(5, 99), fusion=fusion)
      for fusion in ("mean", "weighted_mean", "max")
    )
  assert mean == weighted != best


def test_poor_photos_alone_are_found(tmp_path):
  with _open(tmp_path, FakeBundle()) as gallery:
    gallery.enroll("Ada", faces(2, 1), quality=[1e-6, 1e-6])
    gallery.enroll("Bob", faces(2, 2))
    mean, weighted = (
      gallery.identify(faces(2, 1), fusion=fusion)
      for fusion in ("mean", "weighted_mean")
    )
    for one, other in zip(mean, weighted, strict=True):
      assert [m.name for m in one.matches] == [m.name for m in other.matches]
      np.testing.assert_allclose(
        [m.logit for m in one.matches], [m.logit for m in other.matches], 1e-5
      )
    with pytest.raises(ValueError, match="Cy: quality must be 2 numbers"):
      gallery.enroll("Cy", embeddings=np.ones((2, 64)), quality=[1, 0])
    for lists in (1, 3):
      with pytest.raises(errors.UserError, match="--approximate.*--fusion=max"):
        gallery.identify(faces(1, 1), fusion="weighted_mean", approximate=lists)


@pytest.mark.parametrize("metric", ["l1", "head"])
def test_any_head_is_searched_by(tmp_path, metric):
  bundle, people = FakeBundle(metric), {f"P{i}": faces(3, i) for i in range(9)}
  with _open(tmp_path, bundle) as gallery:
    gallery.enroll_people(people)
    probe = _noisy(people["P4"][:1], 1)
    (found,) = gallery.identify(probe, k=9)
    (mean,) = gallery.identify(probe, k=9, fusion="mean")
  query = bundle.embed(probe)
  logits = {
    name: np.asarray(bundle.head(np.repeat(query, 3, 0), bundle.embed(rows)))
    for name, rows in people.items()
  }
  for answer, of in ((found, np.max), (mean, np.mean)):
    want = sorted(logits, key=lambda name: -of(logits[name]))
    assert [match.name for match in answer.matches] == want
    np.testing.assert_allclose(
      [match.logit for match in answer.matches],
      [of(logits[name]) for name in want],
      rtol=1e-6, atol=1e-6,
    )  # fmt: skip


def test_a_metric_that_ranks_otherwise_is_refused(tmp_path):
  with _open(tmp_path, FakeBundle()) as gallery:
    gallery.enroll("Ada", faces(2, 1))
    by = {m: gallery.identify(faces(1, 1), metric=m) for m in ("cosine", None)}
    assert by["cosine"] == by[None]
    (found,) = gallery.identify(faces(1, 1), metric="head")
    want = by[None][0].matches[0].logit
    assert abs(found.matches[0].logit - want) < 1e-4
    with pytest.raises(errors.UserError, match="--metric=euclidean does not"):
      gallery.identify(faces(1, 1), metric="euclidean")
    with pytest.raises(ValueError, match="fusion"):
      gallery.identify(faces(1, 1), fusion="median")


def test_a_head_that_turns_the_order_round_is_searched_itself():
  class Turned(FakeBundle):
    def logits_from_scores(self, scores):
      return -super().logits_from_scores(scores)

  assert choice.search_metric(Turned()) == "head"
  assert choice.search_metric(FakeBundle("euclidean")) == "euclidean"
  with pytest.raises(errors.UserError, match="'head'"):
    choice.search_metric(Turned(), "cosine")


def test_the_threshold_can_be_another(tmp_path):
  with _open(tmp_path, FakeBundle()) as gallery:
    gallery.enroll("Ada", faces(1, 1))
    (found,) = gallery.identify(faces(1, 1))
    assert found.name == "Ada"
    (found,) = gallery.identify(faces(1, 1), threshold=10.5)
    assert found.name is None and not found.matches[0].accepted


def test_a_person_of_ten_thousand_templates(tmp_path):
  bundle = FakeBundle("euclidean")
  rng = np.random.default_rng(0)
  rows = rng.normal(size=(10_002, 64)).astype(np.float32)
  rows[10_000:] += 3
  with _open(tmp_path, bundle, devices=jax.devices()[:1]) as gallery:
    gallery.enroll("Many", embeddings=rows[:10_000])
    gallery.enroll("Ada", embeddings=rows[10_000:10_001])
    gallery.enroll("Bob", embeddings=rows[10_001:])
    (found,) = gallery.identify(embeddings=rows[:1], k=9)
  assert [match.name for match in found.matches][0] == "Many"
  assert {match.name for match in found.matches} == {"Many", "Ada", "Bob"}


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "l1"])
def test_odd_photos_among_many(metric):
  bundle = FakeBundle(metric)
  rng = np.random.default_rng(0)
  # Alike but for three, on both sides of what is compared at a time.
  rows = 1 + 0.001 * rng.normal(size=(700, 64))
  rows[[3, 511, 600]] = 3 * rng.normal(size=(3, 64))
  templates = Templates(rows.astype(np.float32), [], [])
  assert enrolment.odd_ones(bundle, templates) == [3, 511, 600]
