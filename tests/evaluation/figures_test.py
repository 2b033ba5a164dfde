"""Tests of facesiam_jax.evaluation.figures and .face_figures."""

import io
import itertools
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from PIL import Image

from facesiam_jax.evaluation import face_figures, figures, protocols


def _faces(num, side=64, seed=0):
  """Smooth grey pictures that compress about as badly as faces do."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(30, 226, size=(num, 10, 10)).astype(np.uint8)
  smooth = [
    np.asarray(
      Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC)
    )
    for c in coarse
  ]
  noise = rng.integers(-3, 4, size=(num, side, side))
  return np.clip(np.array(smooth) + noise, 0, 255).astype(np.uint8)[..., None]


def _scored(seed=0, gap=2.0):
  rng = np.random.default_rng(seed)
  same = np.repeat([1, 0], [60, 300])
  return rng.normal(size=360) + gap * same, same


def _drawn_texts(axes):
  """Every text of an axes that is drawn; ticks out of view are not."""
  yield from axes.texts
  yield from (axes.title, axes._left_title)
  for child in axes.child_axes:
    yield from _drawn_texts(child)
  if axes.get_legend() is not None:
    yield from axes.get_legend().get_texts()
  for axis in (axes.xaxis, axes.yaxis) if axes.axison else ():
    yield axis.label
    low, high = sorted(axis.get_view_interval())
    for tick in axis.get_major_ticks():
      if low <= tick.get_loc() <= high:
        yield tick.label1


def _check_texts(figure):
  """No text overlaps another or leaves the figure."""
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  texts = list(figure.texts)
  texts += [text for axes in figure.axes for text in _drawn_texts(axes)]
  boxes = [
    (text.get_text(), text.get_window_extent(canvas.get_renderer()))
    for text in texts
    # The box of a slanted text is far larger than the text.
    if text.get_text().strip() and text.get_rotation() % 90 == 0
  ]
  assert boxes
  page = figure.bbox
  for text, box in boxes:
    assert page.x0 <= box.x0 and box.x1 <= page.x1, text
    assert page.y0 <= box.y0 and box.y1 <= page.y1, text
  for (a, box_a), (b, box_b) in itertools.combinations(boxes, 2):
    width = min(box_a.x1, box_b.x1) - max(box_a.x0, box_b.x0)
    height = min(box_a.y1, box_b.y1) - max(box_a.y0, box_b.y0)
    assert width <= 1 or height <= 1, (a, b)


def _size(png):
  return Image.open(io.BytesIO(png)).size


CURVES = {
  "training_loss": (range(900), np.linspace(1, 0, 900)),
  "validation_loss": ([0, 10, 20], [1.0, 0.5, 0.4]),
  "training_accuracy": ([0, 10, 20], [0.5, 0.9, 0.99]),
  "validation_accuracy": ([0, 10, 20], [0.5, 0.8, 0.85]),
}


def _plots():
  similarity = np.random.default_rng(0).normal(size=(30, 30))
  ids = np.repeat(np.arange(6), 5)
  samples = protocols.sample_pairs(similarity, ids, 0.0)
  names = [f"person {n + 1}" for n in range(40)]
  scores = np.random.default_rng(1).normal(size=40) * 4
  faces = _faces(41)
  systems = {"This network": _scored(), "Raw pixels": _scored(1, 1.0)}
  return {
    "roc": figures.roc_figure(systems, threshold=1.0),
    "det": figures.det_figure(systems, threshold=1.0),
    "scores": figures.scores_figure(*_scored(), threshold=1.0),
    "curves": figures.curves_figure(CURVES),
    "pairs": face_figures.pairs_figure(_faces(30), samples, threshold=0.0),
    "grid": face_figures.grid_figure(
      faces[0], faces[1:], names, scores, threshold=2.0, own=3
    ),
    "decision": face_figures.decision_figure(
      faces[0],
      names[:25],
      scores[:25],
      threshold=2.0,
      thumbnails=faces[1:26],
      own="person 3",
    ),
  }


@pytest.fixture(scope="module")
def plots():
  return _plots()


KINDS = ["roc", "det", "scores", "curves", "pairs", "grid", "decision"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_overlaps_and_the_file_is_small(plots, kind):
  _check_texts(plots[kind])
  png = figures.png_bytes(plots[kind])
  assert len(png) < 300_000
  width, height = _size(png)
  assert 500 < width < 1500 and 300 < height < 1700


def test_pyplot_is_not_touched(plots):
  assert plots
  assert "matplotlib.pyplot" not in sys.modules


def test_thin_frames_keep_their_colour(plots):
  png = figures.png_bytes(plots["grid"])
  colors = Image.open(io.BytesIO(png)).convert("RGB").getcolors(1 << 24)
  found = {color for _, color in colors}
  assert max(colors)[1] == (255, 255, 255)
  for wanted in (figures.BLUE, figures.VERMILLION):
    rgb = tuple(int(wanted[n : n + 2], 16) for n in (1, 3, 5))
    assert rgb in found


@pytest.mark.parametrize(
  "scores, same",
  [
    ([2.0, 1.0, 0.0], [1, 1, 0]),
    ([0.0, 1.0, 2.0], [1, 1, 0]),
    ([1.0, 1.0], [1, 0]),
  ],
)
@pytest.mark.parametrize("threshold", [None, 0.5, 99.0])
def test_degenerate_scores_are_drawn(scores, same, threshold):
  for figure in (
    figures.roc_figure({"a": (scores, same)}, threshold=threshold),
    figures.det_figure({"a": (scores, same)}, threshold=threshold),
    figures.scores_figure(scores, same, threshold=threshold),
  ):
    assert figures.png_bytes(figure).startswith(b"\x89PNG")


def test_histograms_are_shares_of_their_own_kind():
  scores, same = _scored()
  axes = figures.scores_figure(scores, same, threshold=1.0).axes[0]
  assert "(60 pairs)" in axes.get_legend().get_texts()[1].get_text()
  # The outline of a step histogram: heights at every other corner.
  for polygon in axes.patches:
    corners = polygon.get_xy()
    edges = np.unique(corners[:, 0])
    heights = [corners[corners[:, 0] == edge, 1].max() for edge in edges]
    assert 0.9 < np.sum(heights) < 2.1
  fmr = np.mean(scores[same == 0] >= 1)
  assert f"{fmr:.1%} of different people" in axes.get_title(loc="left")


def test_curves_refuse_what_does_not_fit():
  with pytest.raises(ValueError, match="at least one curve"):
    figures.curves_figure({})
  with pytest.raises(ValueError, match="Training has 2 positions and 3"):
    figures.curves_figure({"training_loss": ([1, 2], [1, 2, 3])})


def _frames(figure):
  return [
    p for p in figure.axes[0].patches
    if isinstance(p, Rectangle) and p.get_width() == 1
  ]  # fmt: skip


def test_grid_frames_exactly_the_accepted_and_the_own_person():
  faces = _faces(7)
  scores = [0.0, 3.0, 2.0, -1.0, 5.0, 1.99]
  names = list("abcdef")
  make = face_figures.grid_figure
  figure = make(faces[0], faces[1:], names, scores, threshold=2.0, own=1)
  assert len(_frames(figure)) == 3
  title = "Own person accepted, 2 of 5 strangers accepted"
  shown = {t.get_text() for t in figure.axes[0].texts}
  assert {title, "Probe", "threshold 2.00", "1.99", *names} <= shown
  assert "\N{MINUS SIGN}1.00" in shown
  figure = make(faces[0], faces[1:], names, scores, threshold=2.0, own=3)
  assert len(_frames(figure)) == 4
  assert "Own person rejected, 3 of 5 strangers accepted" in {
    t.get_text() for t in figure.axes[0].texts
  }
  figure = make(faces[0], faces[1:], names, scores, threshold=9.0)
  assert not _frames(figure)
  assert "0 of 6 people accepted" in {
    t.get_text() for t in figure.axes[0].texts
  }


def test_long_headings_stay_inside():
  faces = _faces(9)
  names, scores = list("abcdefgh"), np.arange(8.0)
  title = (
    "a person unseen in training, threshold calibrated: 39 of 39 strangers"
  )
  for heading in (title, title + " accepted by the network"):
    grid = face_figures.grid_figure(
      faces[0], faces[1:], names, scores, threshold=2.0, own=1, title=heading
    )
    decision = face_figures.decision_figure(
      faces[0], names, scores, threshold=2.0, decision=heading
    )
    _check_texts(grid)
    _check_texts(decision)


def _decision(scores, **kwargs):
  names = [f"p{n}" for n in range(len(scores))]
  return face_figures.decision_figure(
    _faces(1)[0], names, scores, threshold=0.5, **kwargs
  )


@pytest.mark.parametrize(
  "scores, heading",
  [
    (
      [0.1, 0.5, 0.2],
      "Recognised: p1 (0.50 \N{GREATER-THAN OR EQUAL TO} 0.50)",
    ),
    (
      [0.7, 0.9],
      "Recognised: p1 (0.90 \N{GREATER-THAN OR EQUAL TO} 0.50); 1 more above "
      "the threshold",
    ),
    ([0.1, -0.2], "Nobody recognised (best: p0, 0.10 < 0.50)"),
    ([0.5], "Recognised: p0 (0.50 \N{GREATER-THAN OR EQUAL TO} 0.50)"),
  ],
)
def test_decision_heading_and_order(scores, heading):
  figure = _decision(scores)
  shown = " ".join(figure.get_suptitle().split())
  assert shown == heading
  bars = figure.axes[1]
  order = np.argsort(-np.array(scores), kind="stable")
  labels = [t.get_text() for t in bars.get_yticklabels()]
  assert labels == [f"p{n}" for n in order]
  _check_texts(figure)


def test_decision_shows_the_highest_of_many():
  figure = _decision(np.arange(100.0), max_people=12, decision="Mine")
  assert figure.get_suptitle() == "Mine"
  assert len(figure.axes[1].get_yticklabels()) == 12
  assert "12 highest of 100" in figure.axes[1].get_title(loc="left")
  _check_texts(figure)


def test_any_name_can_be_drawn():
  names = [
    "$x_1$", "a\nb", "\N{CJK UNIFIED IDEOGRAPH-674E}", "_under", "L" * 200, ""
  ]  # fmt: skip
  faces = _faces(7)
  scores = np.zeros(6)
  for figure in (
    face_figures.decision_figure(faces[0], names, scores, threshold=-1),
    face_figures.grid_figure(
      faces[0], faces[1:], names, scores, threshold=-1, own=0
    ),
  ):
    assert figures.png_bytes(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("shape", [(64, 64), (64, 48, 1), (48, 64, 3)])
def test_any_shape_of_face_can_be_drawn(shape):
  faces = np.zeros((3, *shape), np.uint8)
  figure = face_figures.grid_figure(
    faces[0], faces[1:], ["a", "b"], [0, 1], threshold=0.5
  )
  assert figures.png_bytes(figure).startswith(b"\x89PNG")


def test_kinds_without_pairs_say_so():
  figure = face_figures.pairs_figure(_faces(2), [], threshold=0.0)
  texts = [t.get_text() for t in figure.axes[0].texts]
  assert texts.count("None in this set.") == 3


def test_bad_input_is_refused_by_name():
  faces = _faces(3)
  make = face_figures.grid_figure
  with pytest.raises(ValueError, match="names must hold at least one"):
    make(faces[0], faces[:0], [], [], threshold=0)
  with pytest.raises(ValueError, match=r"scores must have shape \[2\]"):
    make(faces[0], faces[1:], ["a", "b"], [1.0], threshold=0)
  with pytest.raises(ValueError, match="scores must not be NaN"):
    make(faces[0], faces[1:], ["a", "b"], [1.0, np.nan], threshold=0)
  with pytest.raises(ValueError, match="one face for each of 2 names, got 3"):
    make(faces[0], faces, ["a", "b"], [1.0, 2.0], threshold=0)
  with pytest.raises(ValueError, match="a face must be uint8"):
    make(faces[0] / 255, faces[1:], ["a", "b"], [1.0, 2.0], threshold=0)
