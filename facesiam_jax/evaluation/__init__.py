"""Evaluation protocols, figures and reports.

Only the protocols are loaded here; `facesiam_jax.evaluation.figures` and
`facesiam_jax.evaluation.report` load matplotlib and Jinja2, so import them by
name where a picture or a page is wanted.
"""

from facesiam_jax.evaluation.baselines import (
  EIGENFACE_COMPONENTS,
  pca_similarity,
  raw_pixel_similarity,
)
from facesiam_jax.evaluation.protocols import (
  Pairs,
  SamplePair,
  all_pairs,
  sample_pairs,
  summarise,
  verification_report,
)

__all__ = [
  "EIGENFACE_COMPONENTS",
  "Pairs",
  "SamplePair",
  "all_pairs",
  "pca_similarity",
  "raw_pixel_similarity",
  "sample_pairs",
  "summarise",
  "verification_report",
]
