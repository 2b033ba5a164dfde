"""Encoders' forward pass against dlib, PyTorch and ONNX Runtime, on CPU.

The peers are no dependencies of this package: `make test-peers` makes the
environment .venv-peers with torch and dlib; ONNX Runtime is added for this.

  make .venv-peers/.ready
  .venv-peers/bin/python -m pip install onnx onnxruntime onnxscript
  .venv-peers/bin/python benchmarks/encoders.py \\
    --out=benchmarks/results/encoders.json

Every side computes the same network with the same weights on the same faces,
and their embeddings are compared before anything is timed. PyTorch runs in
channels_last and inference mode, ONNX Runtime what PyTorch exports, dlib its
own published network. Calls alternate, so that a busy machine slows all alike;
a ratio is the median over the rounds of the peer's time by ours, above 1 where
ours is faster. The time XLA takes to compile is given apart.
"""

import dataclasses
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import outcome
from absl import app, flags

_ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

_NETWORKS = flags.DEFINE_list(
  "networks",
  ["dlib_resnet29", "resnet50", "iresnet50", "mobilefacenet"],
  "Which to measure.",
)
_BATCHES = flags.DEFINE_list("batches", ["1", "8", "64"], "Batch sizes.")
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Timed calls of each side.")
_OUT = flags.DEFINE_string("out", None, "JSON file of the results.")
_PAUSE_S = 0.5
_FACE_SIZE = 112
_PACKAGES = ("jax", "flax", "numpy", "torch", "onnxruntime", "dlib-bin")

# uint8 faces [B, H, W, 3] -> embeddings [B, D].
Embed = Callable[[np.ndarray], np.ndarray]


def _ours(source: Any, variables: Any) -> tuple[Embed, dict[int, float]]:
  """Returns our side, and the seconds compiling took by batch size."""
  import jax

  from facesiam_jax import encoders, preprocess

  encoder = encoders.create(source.encoder, **source.args)
  compiled: dict[int, Any] = {}
  seconds: dict[int, float] = {}

  def run(faces: jax.Array) -> jax.Array:
    images = preprocess.standardize(
      preprocess.to_float(faces), **source.standardize
    )
    return encoder.apply(variables, images)

  def embed(faces: np.ndarray) -> np.ndarray:
    if len(faces) not in compiled:
      begun = time.perf_counter()
      jitted = jax.jit(run, compiler_options=encoders.compiler_options())
      compiled[len(faces)] = jitted.lower(faces).compile()
      seconds[len(faces)] = time.perf_counter() - begun
    return np.asarray(compiled[len(faces)](faces))

  return embed, seconds


def _standardized(faces: np.ndarray, source: Any) -> np.ndarray:
  """Returns float32 [B, 3, H, W], as PyTorch's networks take them."""
  mean, std = (
    np.asarray(source.standardize[name], np.float32) for name in ("mean", "std")
  )
  images = (faces.astype(np.float32) / 255 - mean) / std
  return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


def _torch_sides(
  network: Any, source: Any, folder: pathlib.Path
) -> dict[str, Embed]:
  import onnxruntime
  import torch

  torch.set_num_threads(os.cpu_count() or 1)
  example = torch.zeros(2, 3, source.size, source.size)
  path = folder / "network.onnx"
  torch.onnx.export(
    network,
    (example,),
    str(path),
    input_names=["x"],
    dynamic_shapes=({0: torch.export.Dim("batch")},),
    dynamo=True,
  )
  session = onnxruntime.InferenceSession(
    str(path), providers=["CPUExecutionProvider"]
  )
  fast = network.to(memory_format=torch.channels_last)

  def by_torch(faces: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(_standardized(faces, source))
    with torch.inference_mode():
      return fast(images.to(memory_format=torch.channels_last)).numpy()

  return {
    "torch": by_torch,
    "onnxruntime": lambda faces: session.run(
      None, {"x": _standardized(faces, source)}
    )[0],
  }


def _torch_network(name: str) -> tuple[Any, Any]:
  """Returns the network in torch with random weights, and who imports it."""
  from facesiam_jax.pretrained import insightface, torchvision
  from tests.pretrained import torch_networks as networks

  if name == "resnet50":
    return networks.ResNet((3, 4, 6, 3), True, dim=256), torchvision
  if name == "iresnet50":
    return networks.IResNet((3, 4, 14, 3)), insightface
  if name == "mobilefacenet":
    return networks.MobileFaceNet(), insightface
  raise app.UsageError(f"--networks={name} is not one that is compared here.")


def _dlib_sides() -> tuple[Any, Any, dict[str, Embed]]:
  import dlib

  from facesiam_jax.pretrained import dlib_resnet

  path = dlib_resnet.find()
  model = dlib.face_recognition_model_v1(str(path))

  def embed(faces: np.ndarray) -> np.ndarray:
    return np.asarray(model.compute_face_descriptor(list(faces)))

  source = dlib_resnet.SOURCE
  return source, dlib_resnet.read(path), {"dlib": embed}


def _sides(name: str) -> tuple[Any, Any, dict[str, Embed]]:
  """Returns (source, our variables, the others)."""
  if name == "dlib_resnet29":
    return _dlib_sides()
  import torch

  from tests.pretrained import torch_networks as networks

  network, importer = _torch_network(name)
  networks.randomize(network)
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "network.pt"
    torch.save(network.state_dict(), path)
    source, variables = importer.read(path, encoder=name)
    # torchvision's own size is for photographs of things.
    source = dataclasses.replace(source, size=_FACE_SIZE)
    return source, variables, _torch_sides(network, source, path.parent)


def _faces(count: int, size: int) -> np.ndarray:
  """Patches and noise: neighbours agree, as in a face."""
  rng = np.random.default_rng(0)
  rows = np.arange(size) * 5 // size
  coarse = rng.integers(0, 200, (count, 5, 5, 3))[:, rows][:, :, rows]
  return (coarse + rng.integers(0, 56, coarse.shape)).astype(np.uint8)


def _seconds(embed: Embed, faces: np.ndarray) -> float:
  # The threads of the side before spin for a while before they sleep, and
  # would take the cores from this one.
  time.sleep(_PAUSE_S)
  begun = time.perf_counter()
  embed(faces)
  return time.perf_counter() - begun


def _time(sides: dict[str, Embed], faces: np.ndarray) -> dict[str, Any]:
  for embed in sides.values():
    embed(faces)
  times: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(_ROUNDS.value):
    for name, embed in sides.items():
      times[name].append(_seconds(embed, faces))
  result: dict[str, Any] = {"batch": len(faces), "rounds": _ROUNDS.value}
  for name, seconds in times.items():
    result[f"{name}_ms_a_face"] = 1e3 * statistics.median(seconds) / len(faces)
    if name != "ours":
      ratios = [b / a for a, b in zip(times["ours"], seconds, strict=True)]
      result[f"{name}_by_ours"] = statistics.median(ratios)
      result[f"{name}_by_ours_range"] = [min(ratios), max(ratios)]
  return result


def _measure(name: str) -> list[dict[str, Any]]:
  source, variables, others = _sides(name)
  ours, compile_seconds = _ours(source, variables)
  faces = _faces(max(map(int, _BATCHES.value)), source.size)
  expected = ours(faces[:2])
  differences = {}
  for side, embed in others.items():
    difference = float(np.abs(embed(faces[:2]) - expected).max())
    if difference > 1e-4 * max(1.0, float(np.abs(expected).max())):
      raise SystemExit(f"{name}: {side} differs by {difference:.3g}.")
    differences[side] = difference
  results = []
  for batch in map(int, _BATCHES.value):
    timed = _time({"ours": ours, **others}, faces[:batch])
    results.append(
      {
        "network": name,
        **timed,
        "compile_s": compile_seconds[batch],
        "largest_difference": differences,
        "load_average": os.getloadavg()[0],
      }
    )
    print(json.dumps(results[-1]), flush=True)
  return results


def main(argv: list[str]) -> None:
  """Measures all networks and writes the results."""
  del argv
  cases = [case for name in _NETWORKS.value for case in _measure(name)]
  result = outcome.environment(_PACKAGES) | {"cases": cases}
  outcome.write(_OUT.value, result)


if __name__ == "__main__":
  app.run(main)
