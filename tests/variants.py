"""Wrong implementations that the tests must reject, and how they are run.

Each module of tests/wrong/ holds a table VARIANTS: name of a public function
("losses.supcon") -> `Variants`. Its `check` is the test of that function,
called by the ordinary test with the right implementation and by
wrong_variants_test.py with each wrong one, which must raise AssertionError.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Variants:
  """A function, the test of it, and mistakes the test must notice.

  Attributes:
    right: the implementation in facesiam_jax.
    check: takes an implementation, compares it with a float64 reference and
      raises AssertionError where they differ.
    wrong: name of a plausible mistake -> an implementation that makes it,
      called just as `right`.
  """

  right: Callable[..., Any]
  check: Callable[[Callable[..., Any]], None]
  wrong: Mapping[str, Callable[..., Any]]
