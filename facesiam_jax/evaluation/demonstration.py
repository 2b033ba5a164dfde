"""The article's two demonstrations: a probe against everybody, and one
person enrolled from a single image without retraining.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from facesiam_jax import bundle as bundle_lib
from facesiam_jax.data import sets


class Grid(NamedTuple):
  """A probe against one random image of each person.

  Attributes:
    probe: image row of the probe.
    person: identity id of the probe.
    references: image row of each person's image, int [P]; never the probe.
    logits: probe against each, float32 [P].
  """

  probe: int
  person: int
  references: np.ndarray
  logits: np.ndarray


class Probe(NamedTuple):
  """One image of the enrolled person against the gallery of single images.

  Attributes:
    row: image row.
    first: whether the right person has the highest score.
    accepted: whether the right person reaches the threshold.
    strangers: number of other people who reach it.
  """

  row: int
  first: bool
  accepted: bool
  strangers: int


@dataclasses.dataclass(frozen=True)
class OneShot:
  """A person enrolled with one image next to one image of each other person.

  Attributes:
    person: identity id.
    references: image row enrolled for each person, int [P].
    probes: the person's other images.
  """

  person: int
  references: np.ndarray
  probes: tuple[Probe, ...]

  def totals(self) -> dict[str, float]:
    """Returns probes, right ones first, accepted, mean strangers accepted."""
    return {
      "probes": len(self.probes),
      "first": sum(probe.first for probe in self.probes),
      "accepted": sum(probe.accepted for probe in self.probes),
      "strangers": float(np.mean([probe.strangers for probe in self.probes])),
    }


def _one_of_each(
  faces: sets.Faces, rng: np.random.Generator, leave_out: int | None
) -> np.ndarray:
  """Draws one image row for each person, never the one left out."""
  rows = []
  for person in range(len(faces.names)):
    own = np.flatnonzero(faces.identity_ids == person)
    rows.append(rng.choice(own[own != leave_out]))
  return np.array(rows)


def grid(
  bundle: bundle_lib.Bundle, faces: sets.Faces, person: int, *, seed: int = 0
) -> Grid:
  """Compares a random image of a person with one image of everybody.

  Args:
    bundle: the recogniser.
    faces: two or more images of each person.
    person: identity id of the probe.
    seed: of the random choice of images.

  Returns:
    The scores.
  """
  rng = np.random.default_rng([seed, person])
  probe = int(rng.choice(np.flatnonzero(faces.identity_ids == person)))
  references = _one_of_each(faces, rng, probe)
  embeddings = bundle.embed(faces.images[[probe, *references]])
  logits = bundle.logits_matrix(embeddings[:1], embeddings[1:])[0]
  return Grid(probe, person, references, logits)


def enrol_one(
  bundle: bundle_lib.Bundle,
  faces: sets.Faces,
  person: int,
  *,
  threshold: float,
  seed: int = 0,
) -> OneShot:
  """Enrols a person with one image and identifies all others of them.

  Args:
    bundle: the recogniser; it is not retrained.
    faces: two or more images of each person.
    person: identity id of the new person.
    threshold: logit from which on a match is accepted.
    seed: of the random choice of the images enrolled.

  Returns:
    What happened to each of the person's other images. A tie with a stranger
    does not count as first.
  """
  rng = np.random.default_rng([seed, person])
  references = _one_of_each(faces, rng, None)
  own = np.flatnonzero(faces.identity_ids == person)
  rows = own[own != references[person]]
  embeddings = bundle.embed(faces.images[np.concatenate([rows, references])])
  logits = bundle.logits_matrix(
    embeddings[: len(rows)], embeddings[len(rows) :]
  )
  probes = []
  for row, scores in zip(rows, logits, strict=True):
    others = np.delete(scores, person)
    probes.append(
      Probe(
        row=int(row),
        first=bool(scores[person] > others.max()),
        accepted=bool(scores[person] >= threshold),
        strangers=int(np.sum(others >= threshold)),
      )
    )
  return OneShot(person, references, tuple(probes))
