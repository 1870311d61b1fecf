"""Alias, Hub id or folder -> config, labels, preprocessing, weights. Torch is imported only when weights are read."""

import difflib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from beitcli.errors import ModelError, UsageError, first_line
from beitcli.file_system import file_digest
from beitcli.model.catalog import BY_ALIAS, DEMO_FOLDER, KNOWN, corrected_labels
from beitcli.model.weights import check_is_no_pointer, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of weight files, best first; an index names the files that the weights are split into."""

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Names of the files that may describe the image processor: nested, in the layout of transformers 5, or alone."""

_NESTED = "image_processor"
"""Key of the image processor in a `processor_config.json`; one without it is of a text processor."""

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""Files beside a model that transformers applies to it where the package peft is installed."""

Activation = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True, slots=True)
class Repository:
    """The files of one checkpoint: a folder, or a repository on the Hub at one commit (or the requested revision)."""

    location: str
    revision: str | None
    on_hub: bool

    def file(self, name: str, refresh: bool = False) -> str | None:
        """The path of one file here, downloaded where needed, or None where the checkpoint has no such file.

        A cached file is used without a request to the Hub, unless `refresh`. Raises ModelError if it cannot be fetched.
        """
        if not self.on_hub:
            path = os.path.join(self.location, name)
            return path if os.path.isfile(path) else None
        known = None if refresh else self._cached(name)
        if known is None:
            return self._download(name)
        return known if isinstance(known, str) else None

    def is_here(self, name: str) -> bool:
        """True if `file` gives a path without a download."""
        return isinstance(self._cached(name), str) if self.on_hub else self.file(name) is not None

    def is_known(self, name: str) -> bool:
        """True if `file` asks nobody, be there such a file or not."""
        return not self.on_hub or self._cached(name) is not None

    def _cached(self, name: str) -> object:
        """The path of a cached file, None if it is not cached, another object if the repository has no such file."""
        from huggingface_hub import try_to_load_from_cache

        with _hub_errors(self.location):
            return try_to_load_from_cache(self.location, name, revision=self.revision)

    def has_weights_here(self) -> bool:
        """True if a run needs no network."""
        return any(map(self.is_here, WEIGHT_FILES))

    def _download(self, name: str) -> str | None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        with _hub_errors(self.location):
            try:
                with suppress(RemoteEntryNotFoundError):  # raised again below, where the cache records it
                    found = get_hf_file_metadata(hf_hub_url(self.location, name, revision=self.revision))
                    if found.size and found.size > 1_000_000:
                        log.info("downloading %s of %s (%.0f MB)", name, self.location, found.size / 1e6)
                return hf_hub_download(self.location, name, revision=self.revision)
            except RemoteEntryNotFoundError:
                return None
            except LocalEntryNotFoundError as error:
                raise _unreachable(self.location) from error


@contextmanager
def _hub_errors(location: str) -> Iterator[None]:
    """Turn errors of huggingface_hub into a ModelError with a hint."""
    import httpx2
    from huggingface_hub import errors
    from huggingface_hub.constants import HF_HUB_CACHE

    try:
        yield
    except errors.HFValidationError as error:
        raise ModelError(f"`{location}` is neither an alias, a folder nor a Hub id", _nearest(location)) from error
    except errors.GatedRepoError as error:
        raise ModelError(f"`{location}` is gated on the Hub", "request access there, then set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"`{location}` has no such revision on the Hub", "leave `revision=` out for main") from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(f"the Hub has no model `{location}`, or it is private", _nearest(location)) from error
    except (errors.OfflineModeIsEnabled, httpx2.TransportError) as error:
        raise _unreachable(location) from error
    except (errors.HfHubHTTPError, OSError) as error:
        is_of_disk = error.errno is not None  # which errors of the Hub have not
        disk = f"downloads go to `{HF_HUB_CACHE}`: make room there, or set HF_HOME to another disk"
        hint = disk if is_of_disk else "try again later, or `model=demo`, or the folder of a downloaded checkpoint"
        raise ModelError(f"downloading `{location}` failed: {first_line(error)}", hint) from error


def _unreachable(location: str) -> ModelError:
    hint = "try `model=demo`, or the folder of a downloaded checkpoint; `beit models` lists what is cached"
    return ModelError(f"`{location}` is not cached and the Hub cannot be reached", hint)


def _nearest(location: str) -> str:
    aliases = {name: known.alias for known in KNOWN for name in (known.alias, known.location)}
    close = dict.fromkeys(aliases[name] for name in difflib.get_close_matches(location, aliases, n=3))
    return f"nearest aliases: {', '.join(close)}" if close else "`beit models` lists the aliases"


def find_repository(name: str, revision: str | None) -> Repository:
    """Repository of the checkpoint of that name: an alias first, then a folder, then the Hub. Uses no network."""
    known = BY_ALIAS.get(name)
    location = known.location if known else name
    if os.path.isdir(location):
        if revision is not None:
            raise UsageError(f"`revision={revision}`: `{name}` is a folder, and only the Hub has revisions")
        return Repository(location, None, on_hub=False)
    if not known and (location.startswith((".", "/", "~")) or "/" not in location):
        raise ModelError(f"`{name}` is neither an alias, a folder nor a Hub id", _nearest(name))
    return Repository(location, revision, on_hub=True)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as its files describe it; the weights stay on disk until `tensors`."""

    name: str
    repository: Repository
    folder: str
    config: Mapping[str, Any]
    processor: Mapping[str, Any] | None
    labels: tuple[str, ...]
    processor_file: str | None = None

    @property
    def is_beit(self) -> bool:
        return self.config.get("model_type") == "beit"

    @property
    def is_demo(self) -> bool:
        return self.repository.location == DEMO_FOLDER

    @property
    def is_pretrained_only(self) -> bool:
        """True for a masked-image model: an encoder whose head predicts visual tokens and no classes."""
        return "BeitForMaskedImageModeling" in (self.config.get("architectures") or ())

    @property
    def patch_side(self) -> int:
        """The side of a patch in pixels. Raises ModelError if patches are not square."""
        return square_side(self.config, "patch_size", 16)

    @property
    def image_side(self) -> int:
        """The side of the checkpoint's own images in pixels. Raises ModelError if they are not square."""
        return square_side(self.config, "image_size", 224)

    @property
    def multi_label(self) -> bool:
        return self.config.get("problem_type") == "multi_label_classification"

    @property
    def activation(self) -> Activation:
        """Function from logits to scores, as transformers' image-classification pipeline chooses it."""
        if self.config.get("problem_type") == "regression":
            return "none"
        return "sigmoid" if self.multi_label or len(self.labels) == 1 else "softmax"

    def weight_file(self) -> str:
        """The path of the weights, or of the index of the files they are in, all downloaded where needed."""
        named = self.config.get("transformers_weights")
        names = (str(named),) if named else WEIGHT_FILES
        here = [name for name in names if self.repository.is_here(name)]
        for name in here or names:
            path = self.repository.file(name)
            if path is not None:
                for part in map(self._part, _parts(path)):
                    check_is_no_pointer(part)
                check_is_no_pointer(path)
                return path
        raise ModelError(f"`{self.name}` has no weights", f"expected one of {', '.join(names)}")

    def files(self) -> list[str]:
        """The paths of all files that affect a prediction, downloaded where needed.

        They are config, image processor and weights, and what else transformers reads for another architecture.
        """
        weights = self.weight_file()
        described = (self.repository.file("config.json"), self.processor_file)
        others = () if self.is_beit else self._read_by_transformers()
        return [*filter(None, described), weights, *map(self._part, _parts(weights)), *others]

    def _read_by_transformers(self) -> Iterator[str]:
        """The configs for other versions of transformers that the config names, and an adapter of the weights."""
        configs = self.config.get("configuration_files")
        names = [str(name) for name in configs if name != "config.json"] if isinstance(configs, list) else []
        yield from filter(None, map(self.repository.file, names))
        if find_spec("peft"):
            yield from (os.path.join(self.folder, name) for name in _ADAPTER_FILES if self.repository.is_here(name))

    def content_digest(self, digest_of: Callable[[str], str] | None = None) -> str:
        """16 hexadecimal digits that change with the content of `files`; their folder makes no difference.

        `digest_of` gives the SHA-256 of a file, which is read otherwise. Raises ModelError if unreadable.
        """
        content = hashlib.sha256()
        for path in self.files():
            try:
                content.update(f"{os.path.basename(path)} {(digest_of or file_digest)(path)}\n".encode())
            except OSError as error:
                raise ModelError(f"cannot read `{path}`: {error.strerror}") from error
        return content.hexdigest()[:16]

    def tensors(self) -> "Mapping[str, Tensor]":
        """Every tensor by its name in a saved classifier, mapped from disk on access.

        Raises ModelError if unreadable.
        """
        path = self.weight_file()
        parts = [self._part(part) for part in _parts(path)] or [path]
        return read_tensors(parts, self.is_beit)

    def _part(self, name: str) -> str:
        path = self.repository.file(name)
        if path is None:
            raise ModelError(f"`{self.name}` lacks `{name}`, which its index names")
        return path


def square_side(config: Mapping[str, Any], key: str, default: int) -> int:
    """One side of a square that a config gives as a number or a pair. Raises ModelError for anything else."""
    match config.get(key, default):
        case int(side) | [int(side)] if side > 0:
            return side
        case [int(side), int(other)] if side == other > 0:
            return side
        case value:
            raise ModelError(f"the checkpoint's {key} is {value}, and only squares are supported")


def _parts(path: str) -> list[str]:
    if not path.endswith(".index.json"):
        return []
    weight_map = _read_json(path).get("weight_map")
    if not (isinstance(weight_map, dict) and weight_map and all(isinstance(part, str) for part in weight_map.values())):
        raise ModelError(f"cannot read `{path}`: its weight_map does not name the files of the weights")
    return sorted(set(weight_map.values()))


def open_checkpoint(name: str, revision: str | None, refresh: bool = False) -> Checkpoint:
    """The checkpoint of that alias, Hub id or folder. On the Hub, all its files are those of one commit.

    Raises ModelError where it cannot be found, reached or read.
    """
    repository = find_repository(name, revision)
    config_path = repository.file("config.json", refresh)
    if config_path is None:
        raise ModelError(f"`{name}` has no config.json", "a checkpoint folder has config.json and model.safetensors")
    folder = os.path.dirname(config_path)
    if repository.on_hub:  # the cache keeps each commit in a folder of its name
        repository = Repository(repository.location, os.path.basename(folder), on_hub=True)
    config = _read_json(config_path)
    processor_path, processor = _processor(repository, refresh)
    return Checkpoint(name, repository, folder, config, processor, _labels(name, config), processor_path)


def _processor(repository: Repository, refresh: bool) -> tuple[str | None, dict[str, Any] | None]:
    """The file that describes the image processor, and the description, as transformers finds them."""
    nesting, alone = PROCESSOR_FILES
    # A cache that was filled without a look at the first file is complete: nothing is asked for again.
    if refresh or repository.is_known(nesting) or not repository.is_known(alone):
        path = repository.file(nesting)
        content = _read_json(path) if path else {}
        if path and _NESTED in content:
            return path, _object(content[_NESTED], path)
    path = repository.file(alone)
    return path, _read_json(path) if path else None


def _read_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read `{path}`: {error}") from error
    return _object(content, path)


def _object(content: Any, path: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ModelError(f"cannot read `{path}`: not a JSON object")
    return content


def _labels(name: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """One label for each output, `LABEL_i` where the config has no labels, as in transformers.

    Raises ModelError where it labels other outputs than 0 to N - 1, except for the known gaps.
    """
    try:
        id2label = {int(key): str(label) for key, label in (config.get("id2label") or {}).items()}
        count = len(id2label) or int(config.get("num_labels", 2))
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"the checkpoint's id2label or num_labels is invalid: {error}") from error
    if not id2label:
        return tuple(f"LABEL_{index}" for index in range(count))
    corrected = corrected_labels(id2label)
    missing = next((index for index in range(count) if index not in corrected), None)
    if missing is not None:
        low, high = min(corrected), max(corrected)
        problem = f"starts at {low}" if low else f"has {high} but not {missing}"
        hint = "number its labels from 0, without a gap, in the order of the outputs (config.json)"
        raise ModelError(f"the id2label of `{name}` {problem}, so the outputs' labels are unknown", hint)
    return tuple(corrected[index] for index in range(count))
