"""Writing of a page: the thumbnails that an earlier one lacks, then the page, complete or not at all."""

import os
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256

from beitcli.errors import ERROR_CODES, UsageError
from beitcli.gallery.items import Gallery
from beitcli.gallery.page_data import page_data
from beitcli.gallery.thumbnail_files import ThumbnailFiles, key_of
from beitcli.jobs.engine import workers_for
from beitcli.jobs.observer import Observer
from beitcli.jobs.requests import Compute, Limits
from beitcli.outputs.destination import check_not_overwritten, check_writable, is_stream, replaced_file, writing
from beitcli.records import Failure, printable

MOST_EMBEDDED = 2000
"""Images of which the page holds the thumbnails itself; more lie in a folder beside it."""

_SUFFIXES = (".html", ".htm")


@dataclass(frozen=True, slots=True)
class WrittenPage:
    """Counts of a page: its images, the thumbnails made for it, and the images that could not be opened for one."""

    images: int
    made: int
    unseen: int


def check_page(out: str) -> None:
    """Raise UsageError or OutputError for a page that cannot be written."""
    if is_stream(out) or not out.lower().endswith(_SUFFIXES):
        raise UsageError(f"`{printable(out)}`: a page is a file that ends in .html", "for example report.html")
    check_writable(out)


def write_page(gallery: Gallery, out: str, limits: Limits, compute: Compute, observer: Observer) -> WrittenPage:
    """Write the page, over an earlier one whose thumbnails are kept where their images have not changed.

    Raises OutputError where it cannot be written, UsageError where it is one of its images.
    """
    from beitcli.gallery.page import page

    check_not_overwritten([out], (item.source.location for item in gallery.items))
    with writing():
        files = ThumbnailFiles(out, len(gallery.items) <= MOST_EMBEDDED)
        names, unseen, made = _thumbnails(files, gallery, limits, compute, observer)
        shown = [name for name in names if name is not None]
        embedded = files.embedded(shown)
    data = page_data(gallery, names, unseen, out, files.folder)
    identity = sha256(os.fsencode(os.path.realpath(out))).hexdigest()[:16]
    with replaced_file(out, keeps_part=False) as stream, writing():
        stream.write(page(data, embedded, identity).encode())
    files.keep_only(shown)
    return WrittenPage(len(gallery.items), made, len(unseen))


def _thumbnails(
    files: ThumbnailFiles, gallery: Gallery, limits: Limits, compute: Compute, observer: Observer
) -> tuple[list[str | None], dict[int, Failure], int]:
    """The name of each image's thumbnail, the images that could not be opened, and the number of those made now."""
    names: list[str | None] = []
    unseen: dict[int, Failure] = {}
    pending: list[tuple[int, str]] = []
    for place, item in enumerate(gallery.items):
        key = None if isinstance(item.record, Failure) else key_of(item.source)
        names.append(files.known(key) if key else None)
        if key and names[-1] is None:
            pending.append((place, key))
        elif key is None and not isinstance(item.record, Failure):
            unseen[place] = Failure(item.source, "not_found", ERROR_CODES["not_found"])
    observer.stage("thumbnails", len(gallery.items))
    observer.kept(len(gallery.items) - len(pending))
    if not pending:
        return names, unseen, 0
    from beitcli.gallery.thumbnails import thumbnails

    sources = (gallery.items[place].source for place, _ in pending)
    made = thumbnails(sources, limits.decoding(digest=True), limits.fetching(), workers_for(compute))
    with closing(made):
        for (place, key), result in zip(pending, made, strict=True):
            if isinstance(result, Failure):
                unseen[place] = result
            else:
                names[place] = files.add(key, result.digest, result.data)
            observer.progress(1)
    return names, unseen, len(pending)
