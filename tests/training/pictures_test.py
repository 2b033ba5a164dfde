"""Tests of what TensorBoard shows besides curves."""

import numpy as np
from tensorboardX.proto import event_pb2

from facesiam_jax.training import metric_writer, pictures

RNG = np.random.default_rng(0)
IDS = np.array([0, 1, 0, 2, 1, 0, 3])
EMBEDDINGS = RNG.normal(size=(7, 5)) * RNG.uniform(1, 3, (7, 1))
IMAGES = RNG.integers(0, 256, (7, 4, 6, 3)).astype(np.uint8)


def _cosine(a, b):
  return float(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b))


def test_histograms_hold_each_pair_once():
  found = pictures.histograms(EMBEDDINGS, IDS)
  lengths = [np.sqrt(sum(x * x)) for x in EMBEDDINGS]
  np.testing.assert_allclose(found["length"], lengths)
  pairs = {True: [], False: []}
  for i in range(7):
    for j in range(i + 1, 7):
      pairs[IDS[i] == IDS[j]].append(_cosine(EMBEDDINGS[i], EMBEDDINGS[j]))
  np.testing.assert_allclose(sorted(found["same_person"]), sorted(pairs[True]))
  np.testing.assert_allclose(
    sorted(found["different_people"]), sorted(pairs[False])
  )


def test_the_worst_triplets_are_shown():
  worst = []
  for a in range(7):
    others = [i for i in range(7) if i != a]
    cosine = {i: _cosine(EMBEDDINGS[a], EMBEDDINGS[i]) for i in others}
    same = [i for i in others if IDS[i] == IDS[a]]
    if same:
      p = min(same, key=cosine.get)
      n = max((i for i in others if IDS[i] != IDS[a]), key=cosine.get)
      worst.append((cosine[n] - cosine[p], a, p, n))
  worst.sort(reverse=True)
  expected = np.concatenate(
    [np.concatenate([IMAGES[i] for i in row[1:]], axis=1) for row in worst[:4]]
  )
  found = pictures.triplets(IMAGES, EMBEDDINGS, IDS)
  np.testing.assert_array_equal(found, expected)


def test_without_pairs_there_is_little_to_show():
  alone = np.arange(7)
  assert pictures.triplets(IMAGES, EMBEDDINGS, alone) is None
  assert set(pictures.histograms(EMBEDDINGS, alone)) == {
    "length", "different_people"
  }  # fmt: skip
  assert set(pictures.histograms(EMBEDDINGS[:1], alone[:1])) == {"length"}


def _events(folder):
  (path,) = folder.iterdir()
  data, place, events = path.read_bytes(), 0, []
  while place < len(data):
    length = int.from_bytes(data[place : place + 8], "little")
    event = event_pb2.Event()
    event.ParseFromString(data[place + 12 : place + 12 + length])
    events.append(event)
    place += 16 + length
  return events


def test_tensorboard_gets_histograms_and_an_image(tmp_path):
  with metric_writer.MetricWriter(tmp_path, -1) as writer:
    histograms = {"length": np.array([1.0, np.nan, 2.0]), "none": np.array([])}
    writer.write_pictures(3, histograms, IMAGES[0])
  values = {
    value.tag: value
    for event in _events(tmp_path / "tensorboard")
    for value in event.summary.value
  }
  assert values["embeddings/length"].histo.num == 2
  image = values["triplets/hardest"].image
  assert (image.height, image.width, image.colorspace) == (4, 6, 3)
  assert set(values) == {"embeddings/length", "triplets/hardest"}
  assert (tmp_path / "metrics.jsonl").read_bytes() == b""
