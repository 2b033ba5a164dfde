"""Enrolling people from a few photos and identifying them, no retraining."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from facesiam_jax import errors
from facesiam_jax.gallery import enrolment, index, open_set, ranking, search
from facesiam_jax.gallery.choice import check_approximate, search_metric
from facesiam_jax.gallery.enrolment import Bundle
from facesiam_jax.gallery.records import Added, Templates
from facesiam_jax.gallery.store import Store

# Queries in one call of the search: bounds its memory.
_CHUNK = 1024


class Match(NamedTuple):
  """One person that a face may be.

  Attributes:
    name: as enrolled.
    logit: of "same person": of the person's most alike template, or what the
      fusion makes of all.
    probability: sigmoid of the logit; NaN where the bundle is uncalibrated.
    accepted: whether the logit reaches the threshold.
  """

  name: str
  logit: float
  probability: float
  accepted: bool


class Identification(NamedTuple):
  """Who a face is.

  Attributes:
    name: of the best match, or None ("unknown") if it is not accepted.
    matches: the k most alike people, best first.
  """

  name: str | None
  matches: tuple[Match, ...]


class Gallery:
  """Enrolled people, kept in a file and searched exactly on the device.

  For one thread. Several processes may share the file: one writes at a time,
  and the others see what it wrote at their next call.

  Attributes:
    store: the file.
    bundle: what embeds and decides.
  """

  def __init__(
    self,
    store: Store,
    bundle: Bundle,
    *,
    devices: Sequence[jax.Device] | None = None,
  ):
    """Joins a store to the bundle that filled it.

    Args:
      store: an open store.
      bundle: a loaded bundle.
      devices: what a large gallery is spread over; None means all devices of
        this process.

    Raises:
      UserError: if another bundle filled the store.
    """
    store.check_bundle(bundle.fingerprint)
    self.store = store
    self.bundle = bundle
    self._devices = devices
    self._metric = search_metric(bundle)
    self._index: index.Index | None = None
    self._version: tuple[int, int] | None = None

  @classmethod
  def open(
    cls,
    path: str | os.PathLike[str],
    bundle: Bundle,
    *,
    create: bool = False,
    storage: str = "float32",
    devices: Sequence[jax.Device] | None = None,
    key_file: str | os.PathLike[str] | None = None,
  ) -> "Gallery":
    """Opens a gallery file.

    Args:
      path: a file on a local disk.
      bundle: the bundle that filled it, or is to fill it.
      create: make an empty gallery where there is no file.
      storage: of a new one: "float32" or "int8"; see `Store.create`.
      devices: as for `Gallery`.
      key_file: of an encrypted gallery, or to encrypt a new one with.

    Returns:
      The gallery; close it, or use it in a `with` statement.

    Raises:
      UserError: if the file is missing, no gallery, filled by another bundle,
        on a network file system or cannot be opened.
    """
    if create:
      store = Store.create(
        path,
        fingerprint=bundle.fingerprint,
        dim=bundle.dim,
        metric=bundle.metric,
        storage=storage,
        key_file=key_file,
      )
    else:
      store = Store.open(path, key_file=key_file)
    try:
      return cls(store, bundle, devices=devices)
    except BaseException:
      store.close()
      raise

  def close(self) -> None:
    """Closes the file."""
    self.store.close()

  def __enter__(self) -> "Gallery":
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def enroll(
    self,
    name: str,
    images: ArrayLike | None = None,
    *,
    embeddings: ArrayLike | None = None,
    quality: Sequence[float] = (),
  ) -> Added:
    """Enrols a person, or gives an enrolled one more templates.

    Args:
      name: who it is.
      images: faces as the bundle wants them, uint8 [N, H, W(, C)], N >= 1.
      embeddings: instead of images, by the same bundle, float [N, D].
      quality: what each weighs by "weighted_mean", N numbers of 1e-6 to 1, such
        as `grading.weight` gives; none where they are to weigh the same.

    Returns:
      Added: how many templates are new, and which were enrolled already.

    Raises:
      UserError: see `Store.add`.
      ValueError: if not exactly one of images and embeddings is given, and for
        another quality.
    """
    if (images is None) == (embeddings is None):
      raise ValueError("give either images or embeddings.")
    if images is not None:
      return self.enroll_people({name: images}, quality={name: quality})
    rows = np.asarray(embeddings, np.float32)
    labels = [f"embedding {i} of {name}" for i in range(len(rows))]
    return self.store.add(
      {name: Templates(rows, enrolment.digests(rows), labels, quality=quality)}
    )

  def enroll_people(
    self,
    people: Mapping[str, ArrayLike],
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    quality: Mapping[str, Sequence[float]] | None = None,
  ) -> Added:
    """Enrols several people in one transaction: all of them or none.

    Args:
      people: name -> images, uint8 [N, H, W(, C)], N >= 1.
      labels: name -> what to call each image in messages, such as its path.
      quality: name -> as for `enroll`.

    Returns:
      Added: how many templates are new, and the labels of those that were
      enrolled already.

    Raises:
      UserError: see `Store.add`.
    """
    templates = enrolment.embed(
      self.bundle, people, labels=labels, quality=quality
    )
    return self.store.add(templates)

  def remove(self, name: str) -> int:
    """Removes a person and erases their data; see `Store.remove`.

    Args:
      name: as enrolled.

    Returns:
      How many templates were removed.

    Raises:
      UserError: for an unknown name, or if the erasing is held up.
    """
    return self.store.remove(name)

  def people(self) -> dict[str, int]:
    """Returns name -> number of templates, by name."""
    return self.store.people()

  def _current(self) -> index.Index:
    """Returns the gallery on the device, brought up to the file."""
    # Asked before reading: a change in between is then seen next time.
    version = self.store.version()
    if self._index is None or version != self._version:
      # Unset meanwhile: what fails half-way is read anew.
      known, self._index = self._index, None
      self._index = self._followed(known) or self._load()
      self._version = version
    return self._index

  def _followed(self, known: index.Index | None) -> index.Index | None:
    if known is None:
      return None
    last = int(known.ids[-1]) if len(known.ids) else 0
    return known if known.follow(*index.changes(self.store, last)) else None

  def _load(self) -> index.Index:
    return index.Index(
      self.store.records(),
      unit=self.bundle.metric == "cosine",
      compact=self.store.meta["storage"] == "int8" and self._metric != "head",
      devices=self._devices,
    )

  def _queries(
    self, images: ArrayLike | None, embeddings: ArrayLike | None
  ) -> np.ndarray:
    if (images is None) == (embeddings is None):
      raise ValueError("give either images or embeddings.")
    if images is not None:
      embeddings = self.bundle.embed(np.asarray(images))
    queries = np.asarray(embeddings, np.float32)
    finite = np.isfinite(queries).all(axis=1)
    if not finite.all():
      raise errors.UserError(
        f"The embedding of face {int(np.argmin(finite))} is not finite; look "
        "at the picture, and evaluate the bundle."
      )
    if self.bundle.metric != "cosine":
      return queries
    norms = np.linalg.norm(queries, axis=1, keepdims=True)
    return queries / np.maximum(norms, np.finfo(np.float32).tiny)

  def identify(
    self,
    images: ArrayLike | None = None,
    *,
    embeddings: ArrayLike | None = None,
    k: int = 5,
    fusion: str = "max",
    metric: str | None = None,
    threshold: float | None = None,
    approximate: int | None = None,
  ) -> list[Identification]:
    """Finds who each face is, exactly unless `approximate` is given.

    Equal scores go to whoever was enrolled first.

    Args:
      images: faces as the bundle wants them, uint8 [N, H, W(, C)].
      embeddings: instead of images, by the same bundle, float [N, D].
      k: how many people to return, >= 1; fewer where fewer are enrolled.
      fusion: what makes a person's logit of those of their templates: "max",
        the most alike one's; "mean"; "top2_mean", of the two most alike; or
        "weighted_mean", by the quality that they were enrolled with.
      metric: "head" compares by the bundle's head itself, which any head can
        be searched by; None takes the quickest that ranks as it does.
      threshold: the logit from which on somebody is accepted; None takes the
        bundle's. See `operating_point` for one of a false positive rate.
      approximate: look through so many lists of templates only, >= 1, which
        are made at the first call after a change: others may be missed, see
        `facesiam gallery tune`. For the fusion "max" and no head.

    Returns:
      One Identification a face.

    Raises:
      UserError: if a face's embedding is not finite, for a metric that does
        not rank people as the head does, or if there is no such approximate
        search.
      ValueError: if k < 1, for an unknown fusion, or for wrong shapes.

    Degenerate input: in an empty gallery everybody is unknown.
    """
    if k < 1:
      raise ValueError(f"k >= 1 is wanted, got {k}.")
    if fusion not in search.RULES:
      raise ValueError(f"fusion must be one of {search.RULES}, got {fusion!r}.")
    metric = search_metric(self.bundle, metric) if metric else self._metric
    check_approximate(approximate, metric, fusion)
    queries = self._queries(images, embeddings)
    known = self._current()
    wanted = min(k, known.num_people)
    if not wanted:
      return [Identification(None, ()) for _ in queries]
    if threshold is None:
      threshold = self.bundle.threshold
    found: list[Identification] = []
    for start in range(0, len(queries), _CHUNK):
      chunk = queries[start : start + _CHUNK]
      logits, people = self._logits(
        known, chunk, wanted, metric, fusion, approximate
      )
      found += self._named(known, logits, people, threshold)
    return found

  def operating_point(
    self, *, fpir: float | None = None, extrapolate: bool = False
  ) -> open_set.OperatingPoint:
    """Finds a threshold for `identify`, and how often strangers pass it.

    Args:
      fpir: share of strangers who may be taken for somebody; None takes the
        bundle's threshold.
      extrapolate: see `open_set.operating_point`.

    Returns:
      The OperatingPoint for as many templates as are enrolled now.

    Raises:
      UserError: for an FPIR that is not supported, or of an uncalibrated
        bundle.
    """
    size = self._current().num_templates
    return open_set.operating_point(
      self.bundle, size, fpir=fpir, extrapolate=extrapolate
    )

  def _logits(
    self,
    known: index.Index,
    queries: np.ndarray,
    k: int,
    metric: str,
    fusion: str,
    lists: int | None,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k best people's (logits, ids), both [Q, k]."""
    # A mean is one of logits, and of the scores only a cosine is in proportion.
    if metric == "head" or (metric == "euclidean" and fusion != "max"):
      return ranking.best_people(
        known, queries, k, metric=self.bundle.head, rule=fusion
      )
    scores, people = ranking.best_people(
      known, queries, k, metric=metric, rule=fusion, lists=lists
    )
    logits = self.bundle.logits_from_scores(scores)
    return np.asarray(logits, np.float32), people

  def _named(
    self,
    known: index.Index,
    logits: np.ndarray,
    people: np.ndarray,
    threshold: float,
  ) -> list[Identification]:
    probabilities = np.full(logits.shape, np.nan, np.float32)
    if self.bundle.calibrated:
      probabilities = np.asarray(jax.nn.sigmoid(logits))
    accepted = logits >= threshold
    found = []
    for row in range(len(logits)):
      matches = tuple(
        Match(
          known.names[int(person)],
          float(logits[row, column]),
          float(probabilities[row, column]),
          bool(accepted[row, column]),
        )
        for column, person in enumerate(people[row])
        if person != search.NO_MATCH
      )
      is_known = bool(matches) and matches[0].accepted
      name = matches[0].name if is_known else None
      found.append(Identification(name, matches))
    return found
