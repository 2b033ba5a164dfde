"""All pairs in chunks give what the whole matrix gives."""

import numpy as np
import pytest

from facesiam_jax.evaluation import many_pairs, protocols


def _people(sizes, spread=1.0, seed=0):
  rng = np.random.default_rng(seed)
  ids = rng.permutation(np.repeat(np.arange(len(sizes)) * 3 + 5, sizes))
  centres = rng.normal(size=(ids.max() + 1, 6))
  return centres[ids] + spread * rng.normal(size=(ids.size, 6)), ids


def _rounded(a, b):
  """Scores with many ties, the same for any block of rows."""
  squares = ((a[:, None] - b[None]) ** 2).sum(-1)
  return -np.round(squares, 1).astype(np.float32)


@pytest.mark.parametrize("threshold", [None, -9.0, -9.05, -1e3, 5.0, np.inf])
@pytest.mark.parametrize("sizes", [[3] * 31, [1, 2, 5] * 11, [2, 3]])
def test_numbers_are_those_of_the_matrix(sizes, threshold, monkeypatch):
  monkeypatch.setattr(many_pairs, "_ROWS", 7)
  monkeypatch.setattr(many_pairs, "_CHUNK", 100)
  rows, ids = _people(sizes)
  settings = {"draws": 5, "resamples": 30, "seed": 3}
  wanted = protocols.verification_report(
    _rounded(rows, rows), ids, threshold, **settings
  )
  found = many_pairs.report(rows, ids, _rounded, threshold, **settings)
  binning = found.pop("binning")
  intervals = [found.pop("interval"), wanted.pop("interval")]
  for name, value in wanted.items():
    if isinstance(value, float):
      assert found[name] == pytest.approx(value, abs=1e-12), name
    else:
      assert found[name] == value, name
  assert found.keys() == wanted.keys()
  if intervals[1] is None:
    assert intervals[0] is None and binning is None
    return
  assert binning["bins"] == many_pairs.BINS and binning["resamples"] == 30
  for name, ends in intervals[1].items():
    np.testing.assert_allclose(
      intervals[0][name], ends, rtol=0, atol=binning["error"] + 1e-12
    )


def test_few_bins_tell_a_larger_error():
  rows, ids = _people([2] * 40, spread=0.3)
  found = [
    many_pairs.report(rows, ids, _rounded, -5.0, resamples=20, bins=bins)
    for bins in (4, 4096)
  ]
  errors = [one["binning"]["error"] for one in found]
  assert errors[1] < errors[0]
  assert found[0]["interval"]["fmr"] == found[1]["interval"]["fmr"]


def test_bad_input_is_refused_by_name():
  rows, ids = _people([2] * 3)
  nan = lambda a, b: np.full((len(a), len(b)), np.nan)
  with pytest.raises(ValueError, match="scores must be finite"):
    many_pairs.report(rows, ids, nan, None)
  with pytest.raises(ValueError, match="two people or more, one of them twice"):
    many_pairs.report(rows, np.arange(6), _rounded, None)
