"""What a gallery can be searched by."""

import numpy as np

from facesiam_jax import errors
from facesiam_jax.gallery.enrolment import Bundle

# Scores from the least alike to the most, by the metrics that bundles name.
_SCORES = {
  "cosine": np.linspace(-1, 1, 201, dtype=np.float32),
  "euclidean": -np.square(np.linspace(30, 0, 301, dtype=np.float32)),
}


def _ranks_alike(bundle: Bundle) -> bool:
  """Whether the search's own scores rank people as the bundle's head does."""
  if bundle.metric not in _SCORES:
    return False
  logits = np.asarray(bundle.logits_from_scores(_SCORES[bundle.metric]))
  return bool((np.diff(logits) >= 0).all())


def search_metric(bundle: Bundle, metric: str | None = None) -> str:
  """Returns what a gallery is searched by: one of METRICS, or "head".

  Args:
    bundle: whose head decides.
    metric: what is asked for; None takes the quickest that ranks people as the
      head does.

  Raises:
    UserError: if it does not rank them so.
  """
  own = bundle.metric if _ranks_alike(bundle) else "head"
  if metric in (None, own):
    return own
  if metric == "head":
    return metric
  raise errors.UserError(
    f"--metric={metric} does not rank people as the bundle's head does, which "
    f"is searched by {own!r}; leave --metric away, or give --metric=head."
  )


def check_approximate(lists: int | None, metric: str, fusion: str) -> None:
  """Raises UserError for an approximate search that there is none of."""
  if lists is None:
    return
  if lists < 1 or metric == "head" or fusion != "max":
    raise errors.UserError(
      f"--approximate={lists}: it takes 1 list or more, --fusion=max, and a "
      "search by cosine or euclidean; leave --approximate away."
    )
