"""Plot of a training curve."""

from collections.abc import Sequence
from typing import Any, BinaryIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_PANELS = {"loss": "training loss", "accuracy": "validation accuracy", "rate": "learning rate"}


def plot_curve(points: Sequence[dict[str, Any]], stream: BinaryIO) -> None:
    """Draw loss, validation accuracy and learning rate by epoch as PNG."""
    figure = Figure(figsize=(7, 8), layout="constrained")
    panels = figure.subplots(len(_PANELS), sharex=True)
    for axes, (name, label) in zip(panels, _PANELS.items(), strict=True):
        known = [(point["epoch"], point[name]) for point in points if point.get(name) is not None]
        axes.plot([epoch for epoch, _ in known], [value for _, value in known], marker="." if len(known) < 50 else "")
        axes.set_ylabel(label)
    panels[-1].set_xlabel("epoch")
    FigureCanvasAgg(figure).print_png(stream)
