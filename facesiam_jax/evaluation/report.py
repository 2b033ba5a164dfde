"""Writes an evaluation to disk: numbers, pictures and one HTML page.

The page is self-contained (its pictures are inlined, nothing is loaded from
elsewhere), so it can be mailed or archived as a single file.
"""

import errno
import json
import os
import pathlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facesiam_jax import errors
from facesiam_jax.evaluation import curves as curves_lib
from facesiam_jax.evaluation import (
  drawing,
  figures,
  page,
  pictures,
  protocols,
  scores,
)

PAGE = "report.html"
METRICS = "metrics.json"
_OPTIONAL = {
  *("curves.png", "pairs.png", "open_set.png", "reliability.png"),
  *("distances.png", "map.png", scores.FILE),
}


class System(NamedTuple):
  """Another way to score the same pairs, for comparison.

  Attributes:
    similarity: float [N, N] over the same images.
    result: its `verification_report`.
  """

  similarity: ArrayLike
  result: Mapping[str, Any]


def write_report(
  out_dir: str | os.PathLike[str],
  result: Mapping[str, Any],
  *,
  similarity: ArrayLike,
  identity_ids: ArrayLike,
  images: ArrayLike | None = None,
  curves: Mapping[str, figures.Series] | None = None,
  curves_unit: str = "epoch",
  samples: Sequence[protocols.SamplePair] | None = None,
  baselines: Mapping[str, System] | None = None,
  spread: Mapping[str, Mapping[str, float | None]] | None = None,
  settings: Mapping[str, Any] | None = None,
  fingerprint: str | None = None,
  title: str = "Face verification report",
  name: str = "This network",
  extra: Sequence[page.Picture] = (),
  made: Mapping[str, Any] | None = None,
  image_ids: np.ndarray | None = None,
  embeddings: ArrayLike | None = None,
  calibrated: bool = False,
  facts: Mapping[str, Any] | None = None,
) -> pathlib.Path:
  """Writes metrics.json, the pictures as PNG, and a self-contained report.html.

  All files are first written under temporary names in `out_dir` and renamed
  only once the last is safe on disk, report.html last of all; where that fails
  (no space left) the previous report stays as it was.

  Args:
    out_dir: directory, made if absent.
    result: from `facesiam_jax.evaluation.verification_report`.
    similarity: what `result` was measured on, float [N, N].
    identity_ids: person of each image, int [N].
    images: faces, uint8 [N, H, W] or [N, H, W, C], for the sample pairs; None
      leaves pairs.png out.
    curves: "training_loss", "validation_loss", "training_accuracy",
      "validation_accuracy" -> (positions, values); None leaves curves.png out.
    curves_unit: of the positions, "epoch" or "step".
    samples: pairs to show; None chooses them by `sample_pairs`.
    baselines: name -> System, drawn and tabulated beside the network.
    spread: from `facesiam_jax.evaluation.summarise`, over folds and seeds.
    settings: of the bundle, printed as a table; nested mappings are flattened.
    fingerprint: of the bundle, hex.
    title: of the page.
    name: of the system reported on, in the pictures and tables.
    extra: further pictures for the page.
    made: the command, commit and versions, from `training.provenance`.
    image_ids: SHA-256 of each image, uint8 [N, 32]; None leaves scores.npz out,
      without which the run cannot be compared with another.
    embeddings: float [N, D]; None leaves distances.png and map.png out.
    calibrated: whether `similarity` are log likelihood ratios; reliability.png
      is drawn only then.
    facts: what else belongs to every figure, and goes into metrics.json:
      "subject", who was measured, in a few words; "options"; "leak", from
      `leaks.check`, whose people are stamped on page and pictures.

  Returns:
    The path of report.html.

  Raises:
    ValueError: if the arrays do not agree, or a number is NaN or infinite.
    errors.UserError: if the directory cannot be written.

  Degenerate input: without a threshold in `result` the pictures have no
  threshold, and sample pairs are left out.
  """
  threshold = result["threshold_logit"]
  ids = np.asarray(identity_ids)
  similarities = {
    name: similarity,
    **{n: system.similarity for n, system in (baselines or {}).items()},
  }
  pairs = protocols.all_pairs(ids)
  logits = np.asarray(similarity)[pairs.i, pairs.j]
  bands = curves_lib.bands(logits, ids[pairs.i], ids[pairs.j])
  shown = pictures.score_pictures(similarities, ids, threshold, bands)
  if calibrated:
    shown.append(
      pictures.calibration_picture(logits, pairs.same, bands, result)
    )
  shown += pictures.search_pictures(similarities, ids)
  if embeddings is not None:
    shown += pictures.embedding_pictures(embeddings, ids)
  if curves:
    shown.append(pictures.curves_picture(curves, curves_unit))
  if images is not None and threshold is not None:
    if samples is None:
      samples = protocols.sample_pairs(similarity, ids, threshold)
    shown.append(pictures.pairs_picture(images, samples, threshold))
  shown += extra
  metrics = dict(
    result, fingerprint=fingerprint, settings=_plain(settings or {})
  )
  metrics |= _plain(facts or {})
  if mark := page.leak_mark(metrics):
    shown = [p._replace(png=drawing.stamped(p.png, mark)) for p in shown]
  if made is not None:
    metrics["made"] = _plain(made)
  if spread is not None:
    metrics["spread"] = _plain(spread)
  if baselines:
    metrics["baselines"] = {n: dict(s.result) for n, s in baselines.items()}
  files = {f"{picture.name}.png": picture.png for picture in shown}
  if image_ids is not None:
    files[scores.FILE] = scores.packed(
      similarity,
      identity_ids,
      image_ids,
      threshold=threshold,
      bundle=fingerprint or "",
      baselines={n: s.similarity for n, s in (baselines or {}).items()},
    )
  text = json.dumps(metrics, indent=2, sort_keys=True, allow_nan=False)
  files[METRICS] = (text + "\n").encode()
  files[PAGE] = page.render(metrics, shown, title, name).encode()
  write_all(pathlib.Path(out_dir), files)
  return pathlib.Path(out_dir) / PAGE


def _plain(value: Any) -> Any:
  """Settings as JSON holds them; what JSON does not know becomes text."""
  if isinstance(value, Mapping):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  if isinstance(value, np.generic | np.ndarray):
    return value.tolist()
  if value is None or isinstance(value, str | bool | int | float):
    return value
  return str(value)


def write_all(out_dir: pathlib.Path, files: Mapping[str, bytes]) -> None:
  """Writes all files or none; the last of `files` is renamed last."""
  mark = f".{uuid.uuid4().hex}.tmp"
  try:
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
      for name, content in files.items():
        _write_and_sync(out_dir / f".{name}{mark}", content)
      for name in files:
        os.replace(out_dir / f".{name}{mark}", out_dir / name)
      # Pictures that only the previous report had would contradict this one.
      for name in _OPTIONAL - files.keys():
        (out_dir / name).unlink(missing_ok=True)
    finally:
      for left in out_dir.glob(f".*{mark}"):
        left.unlink(missing_ok=True)
  except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    mend = "free some space there or choose" if full else "choose"
    raise errors.UserError(
      f"Cannot write the report to {out_dir}: {error.strerror or error}; "
      f"{mend} another directory."
    ) from error


def _write_and_sync(path: pathlib.Path, content: bytes) -> None:
  with path.open("wb") as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
