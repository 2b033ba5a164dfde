"""Feeds against a PyTorch DataLoader, on CPU: images that reach the network.

The peers are no dependencies of this package: `make test-peers` makes the
environment .venv-peers with torch; torchvision is added for this.

  make .venv-peers/.ready
  .venv-peers/bin/python -m pip install torchvision
  .venv-peers/bin/python benchmarks/feed.py --out=benchmarks/results/feed.json

--photos is a tar or a folder <person>/<image>.jpg of 112x112 faces; without it
celeba_wild112.tar in $FACESIAM_SHARED_DATA, else ../shared/data, is taken.

Resident: pairs drawn at random, mirrored, rotated by up to 10 degrees and
sheared by up to 5, from decoded faces in memory. The peer is a DataLoader with
two workers whose items are such pairs, by torchvision's transforms.v2; also
given is one whose items are warped by OpenCV, one warpAffine an image, the
fastest way we know. Streaming: P x K batches of JPEGs, ours out of ArrayRecord
files; the peer's DataLoader, two workers, reads the same JPEGs from files, as
torchvision's ImageFolder does (Pillow), and again by OpenCV. Both sides' pixels
are compared before anything is timed. Sides alternate, so that a busy machine
slows all alike; medians of images/s, and of the ratios of a round.

Also: the share of a training step of ResNet-18 that the device waits for its
batch, and the process's memory over the epochs of a streamed set.
"""

import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import outcome
from absl import app, flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "benchmarks")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")

_PHOTOS = flags.DEFINE_string("photos", None, "Tar or folder of JPEG faces.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timed runs of each side.")
_IMAGES = flags.DEFINE_integer("images", 12_800, "Images of a timed run.")
_STEPS = flags.DEFINE_integer("steps", 12, "Timed steps of ResNet-18.")
_EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs of the memory's figure.")
_OUT = flags.DEFINE_string(
  "out", None, "JSON file of the results; the figure goes beside it."
)
_PACKAGES = (
  *("jax", "grain", "array_record", "numpy", "opencv-python-headless"),
  *("pillow", "torch", "torchvision"),
)
_WORKERS = 2
_PAIRS = 64
_PEOPLE, _PER_PERSON = 16, 4
_ROTATION, _SHEAR, _FLIP = 10.0, 5.0, 0.5

# A call that delivers a number of images.
Deliver = Callable[[int], None]


def _source() -> pathlib.Path:
  if _PHOTOS.value:
    return pathlib.Path(_PHOTOS.value)
  given = os.environ.get("FACESIAM_SHARED_DATA")
  folder = pathlib.Path(given or _ROOT.parent / "shared" / "data")
  return folder / "celeba_wild112.tar"


def _resident(images: np.ndarray, ids: np.ndarray) -> Deliver:
  """Pairs drawn, gathered and warped in one compiled call."""
  import jax
  import jax.numpy as jnp

  from facesiam_jax import augment, preprocess
  from facesiam_jax.data import resident
  from facesiam_jax.training import objectives

  data = jax.device_put(resident.make_resident(images, ids))
  objective = objectives.create("pair_bce", num_pairs=_PAIRS, per_image=False)

  @jax.jit
  def batch(data: resident.Resident, step: jax.Array) -> tuple[Any, Any]:
    rows = objective.draw(data.index, jax.random.key(0), step)
    faces = augment.augment(
      preprocess.to_float(data.images[rows]),
      jax.random.fold_in(jax.random.key(1), step),
      jnp.arange(objective.batch_rows),
      flip=_FLIP,
      rotation_deg=_ROTATION,
      shear_deg=_SHEAR,
    )
    return faces, data.identity_ids[rows]

  def deliver(count: int) -> None:
    for step in range(count // objective.batch_rows):
      jax.block_until_ready(batch(data, step))

  deliver(objective.batch_rows)
  return deliver


def _loader(items: Any, sampler: Any, batch_size: int) -> Any:
  """Returns a DataLoader whose workers stay."""
  from torch.utils import data

  # Spawned, since a process that runs JAX must not be forked; the workers are
  # started before anything is timed.
  return data.DataLoader(
    items,
    batch_size=batch_size,
    sampler=sampler,
    num_workers=_WORKERS,
    persistent_workers=True,
    multiprocessing_context="spawn",
  )


def _peer(items: Any, sampler: Any, batch_size: int, per_item: int) -> Deliver:
  """Returns a call that takes batches out of a DataLoader, an epoch a call."""
  loader = _loader(items, sampler, batch_size)

  def deliver(count: int) -> None:
    sampler.count = count // per_item
    for _ in loader:
      pass

  deliver(batch_size * per_item * _WORKERS)
  return deliver


def _streaming(faces: Any, num_steps: int) -> Any:
  import jax

  from facesiam_jax import parallel
  from facesiam_jax.data import streaming
  from facesiam_jax.training import objectives

  return streaming.Streaming(
    faces.images,
    faces.identity_ids,
    objective=objectives.create(
      "supcon", num_people=_PEOPLE, images_per_person=_PER_PERSON
    ),
    draw_key=jax.random.key(0),
    mesh=parallel.make_mesh(jax.devices()[:1]),
    num_steps=num_steps,
    options=streaming.Options(),
  )


def _stream(faces: Any) -> Deliver:
  """Returns a call that starts a stream anew and takes its batches."""
  import jax

  feed = _streaming(faces, 10**6)

  def deliver(count: int) -> None:
    for step in range(count // (_PEOPLE * _PER_PERSON)):
      jax.block_until_ready(feed.at(step))
    feed.close()

  deliver(_PEOPLE * _PER_PERSON)
  return deliver


def _compare(
  name: str, ours: Deliver, peers: dict[str, Deliver]
) -> dict[str, Any]:
  """Times all sides in turn."""
  sides = {"ours": ours, **peers}
  rates: dict[str, list[float]] = {side: [] for side in sides}
  loads = []
  for _ in range(_ROUNDS.value):
    for side, deliver in sides.items():
      begun = time.perf_counter()
      deliver(_IMAGES.value)
      rates[side].append(_IMAGES.value / (time.perf_counter() - begun))
    loads.append(os.getloadavg()[0])
  result: dict[str, Any] = {
    "case": name,
    "images_per_second": {s: statistics.median(r) for s, r in rates.items()},
    "load_average": loads,
  }
  for peer in peers:
    ratios = [o / p for o, p in zip(rates["ours"], rates[peer], strict=True)]
    result[f"ratio_to_{peer}"] = statistics.median(ratios)
    result[f"ratio_to_{peer}_range"] = [min(ratios), max(ratios)]
  print(json.dumps(result), flush=True)
  return result


def _resident_cases(faces: Any) -> Iterator[dict[str, Any]]:
  import feed_peers

  from facesiam_jax.data import encoded

  ids = faces.identity_ids
  colour = np.asarray(faces.images)
  grey = np.stack(
    [encoded.face(x.mean(2).astype("uint8"), (64, 64, 1))
     for x in colour]
  )  # fmt: skip
  for name, images in (("64x64 grey", grey), ("112x112 colour", colour)):
    peers = {}
    for peer in ("torchvision", "opencv"):
      items = feed_peers.Pairs(images, ids, peer, _FLIP, _ROTATION, _SHEAR)
      peers[peer] = _peer(items, feed_peers.Numbers(), _PAIRS, 2)
    yield _compare(f"resident {name}", _resident(images, ids), peers)


def _streaming_case(faces: Any, paths: list[pathlib.Path]) -> dict[str, Any]:
  import feed_peers

  names = [str(path) for path in paths]
  peers = {}
  for peer in ("pillow", "opencv"):
    items = feed_peers.Files(names, faces.identity_ids, peer)
    for row in range(0, len(items), 997):
      if np.any(items[row][0].numpy() != faces.images[row]):
        raise SystemExit(f"the two sides decode {names[row]} differently.")
    sampler = feed_peers.PeopleTimesImages(faces.identity_ids, _PER_PERSON)
    peers[peer] = _peer(items, sampler, _PEOPLE * _PER_PERSON, 1)
  return _compare("streaming 112x112 JPEG", _stream(faces), peers)


def _wait_case(faces: Any) -> dict[str, Any]:
  """How long the device has nothing to do while its batch is not there."""
  import jax

  from facesiam_jax import parallel
  from facesiam_jax.training import config as config_lib
  from facesiam_jax.training import recipe as recipe_lib
  from facesiam_jax.training import step as step_lib

  config = config_lib.default_config()
  with config.unlocked():
    config.encoder.name = "resnet18"
    config.objective.args = {
      "num_people": _PEOPLE, "images_per_person": _PER_PERSON
    }  # fmt: skip
  recipe = recipe_lib.make_recipe(config)
  mesh = parallel.make_mesh(jax.devices()[:1])
  state = recipe_lib.init_state(recipe, (112, 112, 3), len(faces.names))
  state = parallel.replicate(state, mesh)
  step = step_lib.make_train_steps(recipe, mesh, 1, streamed=True)
  feed = _streaming(faces, 10**6)
  waits, whole = [], []
  for number in range(2 + _STEPS.value):
    begun = time.perf_counter()
    batch = jax.block_until_ready(feed.at(number))
    there = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, batch))
    waits.append(there - begun)
    whole.append(time.perf_counter() - begun)
  feed.close()
  result = {
    "case": f"ResNet-18 step, {_PEOPLE * _PER_PERSON} images of 112x112",
    # The first two compile and start the readers.
    "wait_share": sum(waits[2:]) / sum(whole[2:]),
    "wait_ms": 1e3 * statistics.median(waits[2:]),
    "step_ms": 1e3 * statistics.median(whole[2:]),
  }
  print(json.dumps(result), flush=True)
  return result


def _resident_set_mb() -> float:
  pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
  return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _memory_case(faces: Any) -> dict[str, Any]:
  """The process's resident set over a few epochs of the streamed faces."""
  per_epoch = len(faces.images) // (_PEOPLE * _PER_PERSON)
  num_steps = _EPOCHS.value * per_epoch
  feed = _streaming(faces, num_steps)
  seen: dict[str, list[float]] = {"epoch": [], "megabytes": []}
  for step in range(num_steps):
    feed.at(step)
    if step >= 8 and step % 4 == 0:
      seen["epoch"].append(step / per_epoch)
      seen["megabytes"].append(_resident_set_mb())
  feed.close()
  curve = seen["megabytes"]
  result = {
    "case": "host memory while streaming",
    "first_mb": curve[0],
    "growth_mb": statistics.median(curve[-10:]) - statistics.median(curve[:10]),
    "range_mb": max(curve) - min(curve),
    "batches_mb": feed.host_bytes / 1e6,
    "all_images_mb": faces.images.nbytes / 1e6,
    **seen,
  }
  print(json.dumps({k: v for k, v in result.items() if k not in seen}))
  return result


def _draw_memory(result: dict[str, Any], path: pathlib.Path) -> None:
  from matplotlib import figure

  picture = figure.Figure(figsize=(6, 3), layout="constrained")
  axes = picture.subplots()
  axes.plot(result["epoch"], result["megabytes"])
  axes.set_ylim(0, 1.2 * max(result["megabytes"]))
  axes.set_xlabel("epochs streamed")
  axes.set_ylabel("memory of the process, MB")
  picture.savefig(path, dpi=100)


def main(argv: list[str]) -> None:
  """Runs all cases and writes the results."""
  del argv
  import feed_data

  from facesiam_jax.data import records

  with tempfile.TemporaryDirectory() as folder:
    scratch = pathlib.Path(folder)
    paths = feed_data.jpegs(_source(), scratch)
    faces = records.open_faces(feed_data.write_records(paths, scratch))
    memory = _memory_case(faces)
    cases = [_streaming_case(faces, paths), *_resident_cases(faces)]
    wait = _wait_case(faces)
  found = {"cases": cases, "wait": wait, "memory": memory}
  outcome.write(_OUT.value, outcome.environment(_PACKAGES) | found)
  if _OUT.value:
    path = pathlib.Path(_OUT.value).with_name("feed_memory.png")
    _draw_memory(memory, path)


if __name__ == "__main__":
  app.run(main)
