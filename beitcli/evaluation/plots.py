"""Plots of the confusion matrix and the reliability diagram, and the matrix as a table."""

import csv
import io
from typing import Any, BinaryIO

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from beitcli.evaluation.metrics import Figures

NAMES = 30
"""Most classes that the plot of the matrix names; with more it is a heat map without names."""

_CELLS = 1_000
"""Most rows of the plot of the matrix; more classes share them."""

_MAX_LETTERS = 24  # of a class's name beside an axis


def confusion_table(figures: Figures, stream: BinaryIO) -> None:
    """Write the matrix as CSV: a row per true class, a column per predicted class."""
    column = {each.index: number for number, each in enumerate(figures.classes)}
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["true label", *(each.label for each in figures.classes)])
    counts: dict[int, dict[int, int]] = {}
    for pair in figures.confusion:
        counts.setdefault(pair.true, {})[column[pair.predicted]] = pair.images
    for each in figures.classes:
        row = [0] * len(column)
        for number, images in counts.get(each.index, {}).items():
            row[number] = images
        rows.writerow([each.label, *row])
    text.detach()  # the stream is the caller's to close


def confusion_plot(figures: Figures, stream: BinaryIO) -> None:
    """Draw the matrix as PNG, each row as shares of its true class; correct predictions are on the diagonal.

    Colours show the square root of a share, so that rare confusions are visible.
    """
    place = {each.index: number for number, each in enumerate(figures.classes)}
    count = len(place)
    side = max(count, 1)  # an empty plot if there are no images
    matrix = _matrix(figures, place, side)
    figure = Figure(figsize=(10, 9), dpi=150, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(matrix, norm=PowerNorm(0.5, 0, 1), extent=(0, side, side, 0))
    figure.colorbar(image, label="share of the true class's images")
    axes.set_xlabel("predicted label")
    axes.set_ylabel("true label")
    if 0 < count <= NAMES:
        _name_classes(axes, figures, matrix)
    else:
        axes.set_title(f"{count} classes, in the order of confusion.csv")
    FigureCanvasAgg(figure).print_png(stream)


def _matrix(figures: Figures, place: dict[int, int], side: int) -> NDArray[np.float64]:
    pairs = np.array([(place[each.true], place[each.predicted]) for each in figures.confusion]).reshape(-1, 2)
    weights = [each.images for each in figures.confusion]
    cells, within = min(side, _CELLS), [(0, side)] * 2
    counts, _, _ = np.histogram2d(pairs[:, 0], pairs[:, 1], bins=cells, range=within, weights=weights)
    shares: NDArray[np.float64] = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return shares


def _name_classes(axes: Any, figures: Figures, matrix: NDArray[np.float64]) -> None:
    names = [each.label.partition(",")[0][:_MAX_LETTERS] for each in figures.classes]
    middle = np.arange(len(names)) + 0.5
    axes.set_xticks(middle, names, rotation=90, parse_math=False)
    axes.set_yticks(middle, names, parse_math=False)
    size = max(4, 12 - len(names) // 4)
    for (row, column), share in np.ndenumerate(matrix):
        if share:
            color = "black" if share > 0.4 else "white"
            at = (column + 0.5, row + 0.5)
            axes.annotate(f"{share:.0%}", at, ha="center", va="center", color=color, fontsize=size)


def reliability_plot(figures: Figures, stream: BinaryIO) -> None:
    """Draw the reliability diagram as PNG: accuracy by the best score, and the number of images."""
    figure = Figure(figsize=(7, 8), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    left = [each.low for each in figures.bins]
    width = 1 / len(left)
    upper.bar(
        left, [each.accuracy or 0 for each in figures.bins], width, align="edge", edgecolor="black", label="accuracy"
    )
    upper.plot((0, 1), (0, 1), "--", color="gray", label="perfect calibration")
    upper.set_ylabel("accuracy")
    upper.set_title("no images" if figures.ece is None else f"calibration error {figures.ece:.4f}")
    upper.legend()
    lower.bar(left, [each.images for each in figures.bins], width, align="edge", edgecolor="black", color="gray")
    lower.set_xlabel("score of the best label")
    lower.set_ylabel("images")
    FigureCanvasAgg(figure).print_png(stream)
