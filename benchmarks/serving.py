"""Requests a second and latency of `facesiam serve`, with many enrolled.

  facesiam demo --workdir=runs/demo   # for a bundle
  .venv/bin/python benchmarks/serving.py --bundle=runs/demo/recipe/bundle \\
    --out=benchmarks/results/serving.json

A gallery of --people random embeddings, one each, is written, and the service
is started on it as its own process. Clients, each a thread with one connection,
send an AT&T photo to /identify and wait for the answer, --seconds for each
number of clients, after five seconds that are not counted. Everything, clients
too, shares this machine's cores. "photos" finds the face in the photo first,
"cropped" takes it as it is, which leaves decoding, network and search. Faces in
a call of the device, and memory, are what /metrics says. With --minutes=N
eight clients go on for so long, while the memory is written down.
"""

import contextlib
import http.client
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import outcome
from absl import app, flags

os.environ.setdefault("JAX_PLATFORMS", "cpu")

_PACKAGES = ("fastapi", "jax", "jaxlib", "numpy", "opencv-python-headless")
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle.", required=True)
_PEOPLE = flags.DEFINE_integer("people", 100_000, "People enrolled.")
_CLIENTS = flags.DEFINE_list("clients", ["1", "8", "32"], "Clients at once.")
_SECONDS = flags.DEFINE_float("seconds", 20.0, "Time for each, in seconds.")
_MINUTES = flags.DEFINE_float("minutes", 0.0, "How long memory is watched.")

_EVERY_S = 10.0


def _fill(path: pathlib.Path) -> float:
  """Writes the gallery; returns how many seconds that took."""
  import numpy as np

  import facesiam_jax
  from facesiam_jax.gallery import enrolment, records
  from facesiam_jax.gallery.gallery import Gallery

  bundle = facesiam_jax.load(_BUNDLE.value)
  rows = np.random.default_rng(0).standard_normal(
    (_PEOPLE.value, bundle.dim), np.float32
  )
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  people = {
    f"person {n}": records.Templates(row[None], [digest], [f"row {n}"])
    for n, (row, digest) in enumerate(
      zip(rows, enrolment.digests(rows), strict=True)
    )
  }
  begun = time.perf_counter()
  with Gallery.open(path, bundle, create=True) as gallery:
    gallery.store.add(people)
  return time.perf_counter() - begun


def _photos(*, cropped: bool) -> list[bytes]:
  """Returns requests' bodies: a form with a photo each."""
  import PIL.Image

  from facesiam_jax.data import olivetti

  bodies = []
  for faces in olivetti.read_source()[:8]:
    image = PIL.Image.fromarray(faces[0])
    if cropped:
      image = image.crop((14, 20, 78, 84))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    head = 'form-data; name="photo"; filename="a.jpg"'
    begin = f"--x\r\nContent-Disposition: {head}\r\n\r\n".encode()
    bodies.append(begin + file.getvalue() + b"\r\n--x--\r\n")
  return bodies


@contextlib.contextmanager
def _service(gallery: pathlib.Path, *more: str) -> Iterator[tuple[int, float]]:
  """Yields the port of a service, and how many seconds it took to start."""
  argv = [sys.executable, "-m", "facesiam_jax.cli.main", "serve", "--port=0"]
  argv += [f"--bundle={_BUNDLE.value}", f"--gallery={gallery}", *more]
  begun = time.perf_counter()
  with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    try:
      said = process.stdout.readline()
      if not said:
        raise RuntimeError("facesiam serve did not start.")
      port = int(said.rsplit(":", 1)[1])
      yield port, time.perf_counter() - begun
    finally:
      process.terminate()
      process.stdout.read()


def _metrics(port: int) -> dict[str, float]:
  connection = http.client.HTTPConnection("127.0.0.1", port)
  connection.request("GET", "/metrics")
  lines = connection.getresponse().read().decode().splitlines()
  connection.close()
  pairs = (line.rsplit(" ", 1) for line in lines if line[:1] != "#")
  return {name: float(value) for name, value in pairs}


class _Client(threading.Thread):
  """Asks until a time; keeps when each answer came and how long it took."""

  def __init__(self, port: int, bodies: list[bytes], until: float):
    super().__init__()
    self._port, self._bodies, self._until = port, bodies, until
    self.taken: list[float] = []
    self.errors = 0

  def run(self) -> None:
    """Asks and asks."""
    connection = http.client.HTTPConnection("127.0.0.1", self._port)
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    number = 0
    while time.perf_counter() < self._until:
      body = self._bodies[number % len(self._bodies)]
      number += 1
      begun = time.perf_counter()
      try:
        connection.request("POST", "/identify", body, headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        good = answer.status == 200 and len(told[0]["matches"]) == 5
      except (OSError, http.client.HTTPException, ValueError, LookupError):
        good = False
        connection.close()
      self.errors += not good
      self.taken.append(time.perf_counter() - begun)
    connection.close()


def _load(port: int, bodies: list[bytes], count: int, seconds: float) -> Any:
  """Returns what so many clients met in so many seconds."""
  import numpy as np

  before, begun = _metrics(port), time.perf_counter()
  clients = [_Client(port, bodies, begun + seconds) for _ in range(count)]
  for client in clients:
    client.start()
  for client in clients:
    client.join()
  wall, after = time.perf_counter() - begun, _metrics(port)
  taken = np.array([t for client in clients for t in client.taken])
  every = sum(len(client.taken) for client in clients)
  faces, calls = (
    after[name] - before[name]
    for name in ("facesiam_batch_faces_sum", "facesiam_batch_faces_count")
  )
  quantiles = np.quantile(taken, (0.5, 0.99)) if len(taken) else (None, None)
  return {
    "clients": count,
    "requests": every,
    "errors": sum(client.errors for client in clients),
    "requests_per_s": every / wall,
    "p50_s": quantiles[0] and float(quantiles[0]),
    "p99_s": quantiles[1] and float(quantiles[1]),
    "faces_per_device_call": faces / max(calls, 1),
    "load_average": os.getloadavg()[0],
  }


def _watch(port: int, bodies: list[bytes]) -> dict[str, Any]:
  """Returns the memory over time, in bytes, while eight clients ask."""
  name = "process_resident_memory_bytes"
  end = time.perf_counter() + 60 * _MINUTES.value
  memory = [_metrics(port)[name]]
  rounds = []
  while time.perf_counter() < end:
    rounds.append(_load(port, bodies, 8, _EVERY_S))
    memory.append(_metrics(port)[name])
  return {
    "minutes": _MINUTES.value,
    "every_s": _EVERY_S,
    "resident_bytes": memory,
    "requests": sum(one["requests"] for one in rounds),
    "errors": sum(one["errors"] for one in rounds),
  }


def _case(gallery: pathlib.Path, *, cropped: bool) -> dict[str, Any]:
  bodies = _photos(cropped=cropped)
  with _service(gallery, *(["--cropped"] if cropped else [])) as (port, took):
    _load(port, bodies, 8, 5.0)
    rounds = []
    for count in _CLIENTS.value:
      rounds.append(_load(port, bodies, int(count), _SECONDS.value))
      print(json.dumps({"cropped": cropped} | rounds[-1]), flush=True)
    watched = _watch(port, bodies) if _MINUTES.value and not cropped else None
  return {"start_s": took, "rounds": rounds, "memory": watched}


def main(argv: list[str]) -> None:
  """Measures both cases."""
  del argv
  begun_load = os.getloadavg()
  with tempfile.TemporaryDirectory() as folder:
    gallery = pathlib.Path(folder) / "people.db"
    filled = _fill(gallery)
    spec = json.loads((pathlib.Path(_BUNDLE.value) / "bundle.json").read_text())
    result = {
      "environment": outcome.environment(_PACKAGES),
      "people": _PEOPLE.value,
      "encoder": spec["encoder"],
      "dim": spec["dim"],
      "enrol_s": filled,
      "photos": _case(gallery, cropped=False),
      "cropped": _case(gallery, cropped=True),
      "load_average": {"before": begun_load, "after": os.getloadavg()},
    }
  outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
