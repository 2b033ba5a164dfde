"""Enrolling people from a few photos and identifying them, no retraining."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from facesiam_jax import errors
from facesiam_jax.gallery import enrolment, search
from facesiam_jax.gallery.enrolment import Bundle
from facesiam_jax.gallery.records import Added, Records, Templates
from facesiam_jax.gallery.store import Store

# Queries in one call of the search: bounds its memory.
_CHUNK = 1024
# Templates looked at first; more where one person's fill the first places.
_FIRST_LOOK = 64

_top_k = jax.jit(search.top_k, static_argnames=("k", "metric", "block"))
_best_per_person = jax.jit(search.best_per_person, static_argnames=("k",))


class Match(NamedTuple):
  """One person that a face may be.

  Attributes:
    name: as enrolled.
    logit: of "same person", of the person's most alike template.
    probability: sigmoid of the logit; NaN where the bundle is uncalibrated.
    accepted: whether the logit reaches the bundle's threshold.
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


class _Index(NamedTuple):
  """The gallery on the device, padded to whole blocks, and its names."""

  embeddings: jax.Array
  valid: jax.Array
  template_ids: jax.Array
  records: Records
  num_people: int


def _unit_rows(embeddings: np.ndarray) -> np.ndarray:
  norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
  return embeddings / np.maximum(norms, np.finfo(np.float32).tiny)


def _check_metric(bundle: Bundle) -> None:
  """Raises UserError before a gallery is made that could not be searched."""
  if bundle.metric not in search.METRICS:
    raise errors.UserError(
      f"the bundle's head ranks people by {bundle.metric!r}, but a gallery is "
      f"searched by {' or '.join(search.METRICS)}; train with the head "
      "cosine_logistic or euclidean_logistic, or use `facesiam verify`."
    )


def _power_of_two(number: int) -> int:
  return 1 << max(0, number - 1).bit_length()


class Gallery:
  """Enrolled people, kept in a file and searched exactly on the device.

  For one thread. Several processes may share the file: one writes at a time,
  and the others see what it wrote at their next call.

  Attributes:
    store: the file.
    bundle: what embeds and decides.
  """

  def __init__(self, store: Store, bundle: Bundle):
    """Joins a store to the bundle that filled it.

    Args:
      store: an open store.
      bundle: a loaded bundle.

    Raises:
      UserError: if another bundle filled the store, or the bundle's head
        ranks people by something a gallery is not searched by.
    """
    _check_metric(bundle)
    store.check_bundle(bundle.fingerprint)
    self.store = store
    self.bundle = bundle
    self._index: _Index | None = None
    self._version: tuple[int, int] | None = None

  @classmethod
  def open(
    cls,
    path: str | os.PathLike[str],
    bundle: Bundle,
    *,
    create: bool = False,
    storage: str = "float32",
  ) -> "Gallery":
    """Opens a gallery file.

    Args:
      path: a file on a local disk.
      bundle: the bundle that filled it, or is to fill it.
      create: make an empty gallery where there is no file.
      storage: of a new one: "float32" or "int8"; see `Store.create`.

    Returns:
      The gallery; close it, or use it in a `with` statement.

    Raises:
      UserError: if the file is missing, no gallery, filled by another bundle,
        on a network file system or cannot be opened, or the bundle's head
        ranks people by something a gallery is not searched by.
    """
    _check_metric(bundle)
    if create:
      store = Store.create(
        path,
        fingerprint=bundle.fingerprint,
        dim=bundle.dim,
        metric=bundle.metric,
        storage=storage,
      )
    else:
      store = Store.open(path)
    try:
      return cls(store, bundle)
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
  ) -> Added:
    """Enrols a person, or gives an enrolled one more templates.

    Args:
      name: who it is.
      images: faces as the bundle wants them, uint8 [N, H, W(, C)], N >= 1.
      embeddings: instead of images, by the same bundle, float [N, D].

    Returns:
      Added: how many templates are new, and which were enrolled already.

    Raises:
      UserError: see `Store.add`.
      ValueError: if not exactly one of images and embeddings is given.
    """
    if (images is None) == (embeddings is None):
      raise ValueError("give either images or embeddings.")
    if images is not None:
      return self.enroll_people({name: images})
    rows = np.asarray(embeddings, np.float32)
    labels = [f"embedding {i} of {name}" for i in range(len(rows))]
    return self.store.add(
      {name: Templates(rows, enrolment.digests(rows), labels)}
    )

  def enroll_people(
    self,
    people: Mapping[str, ArrayLike],
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
  ) -> Added:
    """Enrols several people in one transaction: all of them or none.

    Args:
      people: name -> images, uint8 [N, H, W(, C)], N >= 1.
      labels: name -> what to call each image in messages, such as its path.

    Returns:
      Added: how many templates are new, and the labels of those that were
      enrolled already.

    Raises:
      UserError: see `Store.add`.
    """
    templates = enrolment.embed(self.bundle, people, labels=labels)
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

  def _current(self) -> _Index:
    """Returns the gallery on the device, read again if the file changed."""
    # Asked before reading: a change in between is then seen next time.
    version = self.store.version()
    if self._index is None or version != self._version:
      self._index = self._load()
      self._version = version
    return self._index

  def _load(self) -> _Index:
    records = self.store.records()
    rows = records.embeddings
    if self.bundle.metric == "cosine":
      rows = _unit_rows(rows)
    count = len(rows)
    # Whole blocks, so that enrolling one more person compiles nothing anew.
    padding = -count % search.BLOCK if count else search.BLOCK
    last = np.iinfo(np.int32).max
    return _Index(
      jnp.asarray(np.pad(rows, ((0, padding), (0, 0)))),
      jnp.asarray(np.arange(count + padding) < count),
      jnp.asarray(
        np.pad(records.template_ids, (0, padding), constant_values=last)
      ),
      records,
      len(np.unique(records.person_ids)),
    )

  def identify(
    self,
    images: ArrayLike | None = None,
    *,
    embeddings: ArrayLike | None = None,
    k: int = 5,
  ) -> list[Identification]:
    """Finds who each face is.

    A person's score is that of the most alike of their templates. Equal
    scores go to whoever was enrolled first.

    Args:
      images: faces as the bundle wants them, uint8 [N, H, W(, C)].
      embeddings: instead of images, by the same bundle, float [N, D].
      k: how many people to return, >= 1; fewer where fewer are enrolled.

    Returns:
      One Identification a face.

    Raises:
      UserError: if a face's embedding is not finite.
      ValueError: if k < 1, or for wrong shapes.

    Degenerate input: in an empty gallery everybody is unknown.
    """
    if k < 1 or (images is None) == (embeddings is None):
      raise ValueError("give either images or embeddings, and k >= 1.")
    if images is not None:
      embeddings = self.bundle.embed(np.asarray(images))
    queries = np.asarray(embeddings, np.float32)
    finite = np.isfinite(queries).all(axis=1)
    if not finite.all():
      raise errors.UserError(
        f"The embedding of face {int(np.argmin(finite))} is not finite; look "
        "at the picture, and evaluate the bundle."
      )
    if self.bundle.metric == "cosine":
      queries = _unit_rows(queries)
    index = self._current()
    found: list[Identification] = []
    for start in range(0, len(queries), _CHUNK):
      chunk = queries[start : start + _CHUNK]
      found += self._identify_chunk(index, chunk, min(k, index.num_people))
    return found

  def _identify_chunk(
    self, index: _Index, queries: np.ndarray, k: int
  ) -> list[Identification]:
    if k == 0:
      return [Identification(None, ()) for _ in queries]
    scores, people = _people_of(index, queries, k, self.bundle.metric)
    logits = np.asarray(self.bundle.logits_from_scores(scores), np.float32)
    probabilities = np.full(logits.shape, np.nan, np.float32)
    if self.bundle.calibrated:
      probabilities = np.asarray(jax.nn.sigmoid(logits))
    accepted = logits >= self.bundle.threshold
    names = index.records.names
    found = []
    for row in range(len(queries)):
      matches = tuple(
        Match(
          names[int(person)],
          float(logits[row, column]),
          float(probabilities[row, column]),
          bool(accepted[row, column]),
        )
        for column, person in enumerate(people[row])
        if person != search.NO_MATCH
      )
      known = bool(matches) and matches[0].accepted
      found.append(Identification(matches[0].name if known else None, matches))
    return found


def _people_of(
  index: _Index, queries: np.ndarray, k: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the k best people's (scores, person ids), both [Q, k].

  Templates come in order, so the first k different people among them are the
  k best; look further until every query has seen so many. A column is NO_MATCH
  where scores overflow.
  """
  records, num_queries = index.records, len(queries)
  # Few sizes, hence few compilations.
  padding = max(8, _power_of_two(num_queries)) - num_queries
  queries = np.pad(queries, ((0, padding), (0, 0)), mode="edge")
  look = max(_FIRST_LOOK, _power_of_two(2 * k))
  while True:
    found = _top_k(
      index.embeddings,
      index.valid,
      index.template_ids,
      queries,
      k=look,
      metric=metric,
    )
    places = np.searchsorted(records.template_ids, np.asarray(found.ids))
    places = np.minimum(places, len(records.template_ids) - 1)
    people = records.person_ids[places]
    best = _best_per_person(found.scores, found.ids, people, k=k)
    ids = np.asarray(best.people)[:num_queries]
    if (ids != search.NO_MATCH).all() or look >= len(records.template_ids):
      return np.asarray(best.scores)[:num_queries], ids
    look *= 4
