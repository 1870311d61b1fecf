"""Items -> the data of a page: columns, in which labels and folders are numbers."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from beitcli.gallery.items import Gallery, Item
from beitcli.records import Failure, Prediction

_DECIMALS = 6  # of a score: more would only make the page larger


class _Numbers:
    """Numbers of names, from 0, in the order in which they come."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.of = {name: number for number, name in enumerate(dict.fromkeys(names))}

    def __getitem__(self, name: str) -> int:
        return self.of.setdefault(name, len(self.of))

    @property
    def names(self) -> list[str]:
        return list(self.of)


def page_data(
    gallery: Gallery, names: Sequence[str | None], unseen: Mapping[int, Failure], out: str, folder: str | None
) -> dict[str, Any]:
    """The data of the page `out`; its script `records.js` reads it.

    `names` are those of the thumbnails, None without one, and `unseen` the failures to make them, by the place of their
    image. The thumbnails are in the page itself or in `folder`.
    """
    labels, folders = _Numbers(gallery.labels), _Numbers()
    places, predictions, failures = [], [], []
    addressed = _Addresses(out)
    for row, item in enumerate(gallery.items):
        name = item.record.source.name
        start = name.rfind("/") + 1
        places.append((folders[name[:start]], name[start:]))
        if isinstance(item.record, Prediction):
            predictions.append(
                [value for each in item.record.scores for value in (labels[each.label], round(each.score, _DECIMALS))]
            )
        else:
            predictions.append([])
            failures.append((row, item.record.code, item.record.message))
    figures = gallery.figures
    for each in figures["classes"] if figures else ():  # a sample may have no image of a class
        _ = labels[each["label"]]
    has_truth = any(item.true is not None for item in gallery.items)
    return {
        "title": gallery.title,
        "about": list(gallery.about),
        "note": gallery.note,
        "left_out": gallery.left_out,
        "true": [-1 if item.true is None else labels[item.true] for item in gallery.items] if has_truth else None,
        "labels": labels.names,
        "folders": folders.names,
        "folder": [number for number, _ in places],
        "name": [name for _, name in places],
        "predictions": predictions,
        "failures": failures,
        "unseen": [(row, failure.code, failure.message) for row, failure in unseen.items()],
        "addresses": [
            addressed.of(item) if name is not None or _is_there(item) else None
            for item, name in zip(gallery.items, names, strict=True)
        ],
        "thumbnails": [name or 0 for name in names],
        "thumbnail_folder": folder,
        "figures": figures,
    }


def _is_there(item: Item) -> bool:
    """True if the image, which has no thumbnail, might be opened."""
    return item.source.kind == "url" or os.path.lexists(item.source.location)


class _Addresses:
    """URLs of images relative to the folder of the page."""

    def __init__(self, out: str) -> None:
        self._beside = os.path.dirname(os.path.realpath(out))
        self._folders: dict[str, str] = {}

    def of(self, item: Item) -> str | None:
        """The address of an image, quoted byte by byte; None for an image from standard input."""
        if item.source.kind != "path":
            return item.source.location if item.source.kind == "url" else None
        folder, name = os.path.split(item.source.location)
        if folder not in self._folders:
            relative = os.path.relpath(os.path.realpath(folder or "."), self._beside)
            self._folders[folder] = f"{quote(os.fsencode(relative))}/"
        return self._folders[folder] + quote(os.fsencode(name))
