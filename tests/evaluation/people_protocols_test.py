"""Tests of identification, triplets and templates against slow references."""

import numpy as np
import pytest

from facesiam_jax.evaluation import (
  people_protocols,
  templates,
  triplet_protocol,
)


def _people(count=34, images=3, seed=0, spread=0.6):
  rng = np.random.default_rng(seed)
  centres = np.repeat(rng.normal(size=(count, 8)), images, axis=0)
  rows = centres + spread * rng.normal(size=centres.shape)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  return rows, np.repeat(np.arange(count), images)


def _cosine(a, b):
  return a @ b.T


def test_closed_set_ranks_rise_and_have_intervals():
  rows, ids = _people()
  found = people_protocols.closed_set(rows @ rows.T, ids, draws=20)
  assert found["rank_1"] <= found["rank_5"] <= found["rank_10"] < 1
  assert found["cmc"][-1] == 1
  low, high = found["interval"]["rank_1"]
  assert low < found["rank_1"] < high
  few = people_protocols.closed_set(rows @ rows.T, ids, draws=20, ways=5)
  assert few["rank_1"] > found["rank_1"] and few["rank_10"] is None


def test_few_people_have_no_interval_and_why():
  rows, ids = _people(count=6)
  found = people_protocols.closed_set(rows @ rows.T, ids, draws=5)
  assert found["interval"] is None
  assert "at least 30 people" in found["interval_reason"]


def test_open_set_of_a_hand_computed_case():
  # Two photos each: whoever is enrolled finds themselves at cosine 0.8; the
  # strangers 2 and 3 resemble nobody (0), or somebody more than that.
  rows = np.zeros((8, 8))
  for person in range(4):
    rows[2 * person, 2 * person] = 1.0
    rows[2 * person + 1, 2 * person : 2 * person + 2] = 0.8, 0.6
  ids = np.repeat(np.arange(4), 2)
  found = people_protocols.open_set_by_size(
    rows, ids, _cosine, sizes=[1, 2], targets=[0.25], draws=3
  )
  assert [one["fnir_at_fpir_0.25"] for one in found] == [0.0, 0.0]
  assert found[0]["counts"] == {
    "mated_a_draw": 1.0,
    "unmated_a_draw": 6.0,
    "draws": 3,
  }
  alike = np.ones((8, 8))
  found = people_protocols.open_set_by_size(
    alike, ids, _cosine, sizes=[2], targets=[0.25], draws=3
  )
  assert found[0]["fnir_at_fpir_0.25"] == 1.0


def test_more_enrolled_photos_and_smaller_galleries_are_easier():
  rows, ids = _people(images=6)
  one, three = (
    people_protocols.open_set_by_size(
      rows, ids, _cosine, sizes=[5, 17], photos=photos, targets=[0.1], draws=5
    )
    for photos in (1, 3)
  )
  rate = "fnir_at_fpir_0.1"
  assert three[1][rate] < one[1][rate]
  assert one[0][rate] < one[1][rate]
  assert one[1]["interval"][rate][0] <= one[1][rate]


def test_sizes_out_of_range_are_refused():
  rows, ids = _people(count=4)
  with pytest.raises(ValueError, match="gallery sizes must lie in 1..3"):
    people_protocols.open_set_by_size(rows, ids, _cosine, sizes=[4])


def test_triplets_are_counted_one_by_one():
  rows, ids = _people(count=7, images=3)
  distances = np.linalg.norm(rows[:, None] - rows[None], axis=2)
  right = total = 0
  for a in range(21):
    for p in range(21):
      for n in range(21):
        if a != p and ids[a] == ids[p] and ids[a] != ids[n]:
          total += 1
          right += distances[a, p] < distances[a, n]
  found = triplet_protocol.triplet_report(distances, ids)
  assert found["counts"]["triplets"] == total
  assert found["triplet_accuracy"] == pytest.approx(right / total)
  genuine = [distances[i, j] for i in range(21) for j in range(i)
             if ids[i] == ids[j]]  # fmt: skip
  mean = sum(genuine) / len(genuine)
  sd = (sum((d - mean) ** 2 for d in genuine) / len(genuine)) ** 0.5
  assert found["genuine_mean"] == pytest.approx(mean)
  assert found["genuine_sd"] == pytest.approx(sd)
  below = sum(d < 1 for d in genuine) / len(genuine)
  assert found["genuine_below"] == pytest.approx(below)


def test_the_likeliest_threshold_is_where_densities_cross():
  rng = np.random.default_rng(0)
  places = np.repeat(rng.normal(size=(20, 4)) * 4, 4, axis=0)
  places += rng.normal(size=places.shape)
  distances = np.linalg.norm(places[:, None] - places[None], axis=2)
  found = triplet_protocol.triplet_report(
    distances, np.repeat(np.arange(20), 4)
  )
  x = found["maximum_likelihood"]["threshold"]
  density = lambda kind: (
    -np.log(found[f"{kind}_sd"])
    - (x - found[f"{kind}_mean"]) ** 2 / (2 * found[f"{kind}_sd"] ** 2)
  )
  assert density("genuine") == pytest.approx(density("impostor"))


def test_a_medium_counts_once_however_many_frames_it_has():
  rows = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
  (pooled,), _ = templates.pool(rows, ["t"] * 4, media_ids=[0, 0, 0, 1])
  assert pooled == pytest.approx(np.array([1, 1]) / 2**0.5)
  (flat,), _ = templates.pool(rows, ["t"] * 4)
  assert flat == pytest.approx(np.array([3, 1]) / 10**0.5)
  (plain,), _ = templates.pool(rows, ["t"] * 4, unit=False)
  assert plain == pytest.approx([1.5, 0.25])


@pytest.mark.parametrize("ways", [None, 10])
def test_a_photo_without_a_face_is_a_search_missed(ways):
  rows, ids = _people(count=12, spread=0.9)
  found = people_protocols.closed_set(rows @ rows.T, ids, ways=ways, draws=7)
  enrolled, failed = ways or 12, 6
  with_all = people_protocols.with_failures(found, failed)
  # Each draw searches two further photos of each, and six in twelve fail.
  right = found["rank_1"] * 2 * enrolled
  want = right / (2 * enrolled + failed * enrolled / 12)
  assert with_all["rank_1_with_failures"] == pytest.approx(want)
  assert with_all["rank_1"] == found["rank_1"]
  assert with_all["counts"]["failed_photos"] == failed
  same = people_protocols.with_failures(found, 0)
  assert same["rank_1_with_failures"] == found["rank_1"]


def test_missed_searches_of_the_enrolled_alone_count_in_open_set():
  rows, ids = _people(count=20, spread=0.9)
  sizes = people_protocols.open_set_by_size(
    rows, ids, lambda a, b: a @ b.T, sizes=[5, 10], targets=[0.1], draws=5
  )
  found = {"sizes": sizes, "counts": {"people": 20, "images": 60}}
  with_all = people_protocols.with_failures(found, 8)
  for before, after in zip(sizes, with_all["sizes"], strict=True):
    missed = before["fnir_at_fpir_0.1"] * 2 * before["size"]
    failed = 8 * before["size"] / 20
    want = (missed + failed) / (2 * before["size"] + failed)
    assert after["fnir_at_fpir_0.1_with_failures"] == pytest.approx(want)
