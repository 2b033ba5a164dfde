"""From which logit on somebody is known, and how often strangers would be.

A bundle records the false match rate of one comparison over thresholds, and
the false positive identification rate (FPIR) in galleries as large as the
people it was calibrated with allow. Up to that size FPIR is read off what was
measured. Beyond it follows from the false match rate of as many independent
comparisons as templates are enrolled: too many rather than too few, since the
templates of one person, and the faces that one stranger is like, go together.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from facesiam_jax import errors, metrics
from facesiam_jax.gallery.enrolment import Bundle


class OperatingPoint(NamedTuple):
  """A threshold, and what it does to strangers in a gallery of a size.

  Attributes:
    threshold: the logit from which on somebody is accepted.
    size: templates in the gallery.
    fmr: false match rate of one comparison; None where nothing is known.
    fpir: share of strangers who are taken for somebody; None where nothing is
      known.
    low: lower end of its 95 % interval; None where there is none.
    high: upper end.
    basis: "measured"; "extrapolated", beyond what was tested; or "unknown".
    tested: templates in the galleries that it was measured in; None otherwise.
  """

  threshold: float
  size: int
  fmr: float | None
  fpir: float | None
  low: float | None
  high: float | None
  basis: str
  tested: int | None

  def sentence(self) -> str:
    """Returns the figures as text."""
    if self.fpir is None:
      return "how many strangers are accepted is not known"
    told = f"strangers accepted (FPIR): {self.fpir:.2%}"
    if self.basis == "extrapolated":
      return (
        f"{told}, extrapolated to {self.size} enrolled photos from an FMR of "
        f"{self.fmr:.3g}, no interval"
      )
    interval = "no interval, too few people"
    if self.low is not None and self.high is not None:
      interval = f"95 % interval {self.low:.2%} to {self.high:.2%}"
    return (
      f"{told} ({interval}), measured in galleries of {self.tested} photos for "
      f"{self.size} enrolled"
    )


class _Curve(NamedTuple):
  """Logits, rising, and the false match rates > 0 there."""

  logits: np.ndarray
  rates: np.ndarray


def _curve(record: dict[str, Any], bundle: Bundle) -> _Curve:
  points = dict(zip(record["logits"], record["fmr"], strict=True))
  for threshold in bundle.thresholds.values():
    if threshold.get("fmr"):
      points.setdefault(threshold["logit"], threshold["fmr"])
  pairs = sorted((x, rate) for x, rate in points.items() if rate > 0)
  logits, rates = np.array(pairs, np.float64).reshape(-1, 2).T
  return _Curve(logits, np.minimum.accumulate(rates))


def _slope(curve: _Curve) -> float:
  """Returns d log FMR / d logit where impostors are rare, < 0, or NaN.

  Of a normal distribution, and of any other whose tail falls quicker than an
  exponential, the rate beyond falls quicker still.
  """
  tail = slice(-max(2, len(curve.logits) // 2), None)
  x, y = curve.logits[tail], np.log(curve.rates[tail])
  if len(x) < 2 or x[-1] == x[0] or y[-1] >= y[0]:
    return math.nan
  return float(np.polyfit(x, y, 1)[0])


def _rate_at(curve: _Curve, threshold: float) -> float:
  """Returns the FMR at a logit, interpolated or extrapolated; or NaN."""
  if not len(curve.logits):
    return math.nan
  x, y = curve.logits, np.log(curve.rates)
  if threshold <= x[-1]:
    return float(np.exp(np.interp(threshold, x, y)))
  return math.exp(y[-1] + _slope(curve) * (threshold - x[-1]))


def _threshold_at(curve: _Curve, rate: float) -> float:
  """Returns the logit with an FMR, interpolated or extrapolated; or NaN."""
  if not len(curve.logits):
    return math.nan
  x, y = curve.logits, np.log(curve.rates)
  wanted = math.log(rate) if rate > 0 else -math.inf
  if wanted >= y[-1]:
    return float(np.interp(-wanted, -y, x))
  return float(x[-1] + (wanted - y[-1]) / _slope(curve))


def _record_of(bundle: Bundle) -> dict[str, Any]:
  empty: dict[str, Any] = {
    "logits": [], "fmr": [], "smallest_fmr": None, "sizes": [],
  }  # fmt: skip
  return {**empty, **bundle.calibration.get("open_set", {})}


def _chosen(
  bundle: Bundle,
  record: dict[str, Any],
  curve: _Curve,
  size: int,
  fpir: float,
  extrapolate: bool,
) -> float:
  """Returns the logit that an FPIR in a gallery of a size asks for."""
  if not 0 < fpir < 1:
    raise errors.UserError(f"--fpir={fpir:g} must lie between 0 and 1.")
  if not bundle.calibrated:
    raise errors.UserError(
      f"--fpir={fpir:g} asks for an error rate, and --bundle is uncalibrated; "
      "run facesiam calibrate."
    )
  target = metrics.fmr_of_fpir(fpir, size)
  smallest = record["smallest_fmr"]
  if (smallest is None or target < smallest) and not extrapolate:
    known, mend = "none", "calibrate it with more people"
    if smallest is not None:
      known = f"{smallest:.3g} at the least"
      least = metrics.fpir_of_fmr(smallest, size)
      mend = f"{mend}, give --fpir={math.ceil(1e4 * least) / 1e4:g} or more"
    raise errors.UserError(
      f"--fpir={fpir:g} among {size} enrolled photos means a false match rate "
      f"of {target:.3g}, and the people that --bundle was calibrated with "
      f"support {known}; {mend}, or give --extrapolate."
    )
  threshold = _threshold_at(curve, target)
  if not math.isfinite(threshold):
    raise errors.UserError(
      f"--fpir={fpir:g} cannot be extrapolated: --bundle records too few false "
      "match rates; run facesiam calibrate."
    )
  return threshold


def operating_point(
  bundle: Bundle,
  size: int,
  *,
  fpir: float | None = None,
  extrapolate: bool = False,
) -> OperatingPoint:
  """Finds the threshold, and how often strangers pass it.

  Args:
    bundle: what decides.
    size: templates in the gallery.
    fpir: share of strangers who may be taken for somebody, inside 0..1: an FMR
      of 1 - (1 - FPIR)^(1/N) is then looked up. None takes the bundle's
      threshold.
    extrapolate: also where the people that the bundle was calibrated with
      cannot carry such an FMR: log FMR goes on in a straight line.

  Returns:
    The OperatingPoint.

  Raises:
    UserError: for an FPIR that is not supported, or of an uncalibrated bundle.

  Degenerate input: an empty gallery counts as one of a single template.
  """
  size = max(1, size)
  record = _record_of(bundle)
  curve = _curve(record, bundle)
  threshold = bundle.threshold
  if fpir is not None:
    threshold = _chosen(bundle, record, curve, size, fpir, extrapolate)
  rate = _rate_at(curve, threshold) if bundle.calibrated else math.nan
  if not math.isfinite(rate):
    return OperatingPoint(
      threshold, size, None, None, None, None, "unknown", None
    )
  logits = record["logits"]
  tested = [n for n in record["sizes"] if n >= size]
  if not tested or not logits[0] <= threshold <= logits[-1]:
    total = metrics.fpir_of_fmr(min(rate, 1.0), size)
    return OperatingPoint(
      threshold, size, rate, total, None, None, "extrapolated", None
    )
  row = record["sizes"].index(tested[0])

  def at(name: str) -> float:
    return float(np.interp(threshold, logits, record[name][row]))

  low, high = (
    None if record[name] is None else at(name) for name in ("low", "high")
  )
  return OperatingPoint(
    threshold, size, rate, at("fpir"), low, high, "measured", tested[0]
  )
