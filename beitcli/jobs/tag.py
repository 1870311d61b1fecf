"""Tagging of images with their labels, in sidecars or in the images themselves, and its clearing."""

import errno
import os
from collections import Counter
from dataclasses import dataclass, field

from beitcli.decisions import GONE, Decision, Keys
from beitcli.errors import OutputError, hint_for
from beitcli.inputs.formats import FORMATS
from beitcli.jobs.observer import Observer
from beitcli.jobs.result_files import ResultFiles
from beitcli.records import printable
from beitcli.tagging.files import SidecarStyle, sidecar_of, tag
from beitcli.tagging.xmp import XmpError, check_library, keyword_of

_STYLES: tuple[SidecarStyle, ...] = ("name", "stem")


@dataclass(frozen=True, slots=True)
class TagRequest:
    """Results, and where their labels go; see the options of `beit tag`."""

    results: ResultFiles
    sidecar_style: SidecarStyle = "name"
    embed: bool = False
    clear: bool = False
    dry_run: bool = False


@dataclass(slots=True)
class Tagged:
    """Counts of images: changed, as they should be before, left by reason; and failures with reasons."""

    changed: int = 0
    kept: int = 0
    left: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str]] = field(default_factory=list)


def tag_images(request: TagRequest, observer: Observer) -> Tagged:
    """Give each image its label as a keyword, in place of an earlier one of ours, or clear ours.

    Raises UsageError for results that are not there and where the library is missing, OutputError for a full disk.
    """
    request.results.check()
    check_library()
    found, repeated = request.results.decisions(Keys(), observer)
    tagged = Tagged(left=Counter({"listed twice": repeated} if repeated else {}))
    observer.stage("tagging", len(found))
    given: set[str] = set()
    for decision in found:
        _tag(request, decision, given, tagged)
        observer.progress(1)
    return tagged


def _tag(request: TagRequest, decision: Decision, given: set[str], tagged: Tagged) -> None:
    reason = _reason_to_leave(request, decision)
    files = [path for path in _files(request, decision.key) if path not in given]
    if not reason and not files:
        reason = "sidecar of another image"
    if reason:
        tagged.left[reason] += 1
        return
    given.update(files)
    keyword = None if request.clear or decision.label is None else keyword_of(decision.label)
    try:
        if not os.path.isfile(decision.key):
            raise FileNotFoundError(errno.ENOENT, GONE)
        changes = [tag(path, (keyword,) if keyword else (), request.dry_run) for path in files]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"`{printable(decision.name)}`: {error.strerror}", hint_for(error)) from error
        tagged.failed.append((decision.name, error.strerror or str(error)))
    except XmpError as error:
        tagged.failed.append((decision.name, str(error)))
    else:
        tagged.changed += any(changes)
        tagged.kept += not any(changes)


def _reason_to_leave(request: TagRequest, decision: Decision) -> str | None:
    if decision.source.kind != "path":
        return "no file"
    return "failed" if decision.code is not None and not request.clear else None


def _files(request: TagRequest, image: str) -> list[str]:
    """The files that hold the image's tags; to clear, those that may. No raw file is written to."""
    if request.embed and not image.lower().endswith(FORMATS["RAW"]):
        return [image]
    return [sidecar_of(image, style) for style in (_STYLES if request.clear else (request.sidecar_style,))]
