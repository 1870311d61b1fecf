"""The Python API: the records of a run as an iterator, and models that are loaded once and called many times."""

import inspect
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, Unpack, get_args

from beitcli.errors import BeitError
from beitcli.inputs.sources import literal
from beitcli.jobs.classify import predictions
from beitcli.jobs.embed import embeddings, open_encoder
from beitcli.jobs.engine import beit_preprocessing, open_model, settings_for
from beitcli.jobs.requests import DEFAULT_MODEL, Compute, Dtype, Inputs, Labels, Limits, ModelChoice, Request, Resume
from beitcli.jobs.tasks import Task, classification_task, encoding_task
from beitcli.jobs.values import check_values
from beitcli.ledger.feature_store import FeatureCodec
from beitcli.model.features import Encoding, Pool, shape_of
from beitcli.records import Embedding, Failure, Fetched, Prediction, ResultRecord, Source

if TYPE_CHECKING:
    from concurrent.futures import Future

    import numpy as np
    from PIL import Image

    from beitcli.inputs.decode import Outcome

Location: TypeAlias = str | os.PathLike[str]
Item: TypeAlias = "Location | bytes | Image.Image | np.ndarray[Any, Any]"
"""An image: a file's path, its bytes, or pixels: a Pillow image or a uint8 array of shape (height, width, 3), RGB."""


class ModelOptions(TypedDict, total=False):
    """Options of every model; the defaults are those of the command line."""

    revision: str | None
    preprocess: Literal["checkpoint", "paper"]
    image_size: int | None
    batch_size: int | None
    device: str
    dtype: Dtype
    compile: bool | None
    fast_decode: bool
    max_pixels: int


class RunOptions(ModelOptions, total=False):
    """Options of a run over files, folders, globs and URLs; the defaults are those of the command line."""

    model: str
    workers: int | None
    files_from: str | None
    null: bool
    ext: Sequence[str] | None
    exclude: Sequence[str] | None
    hidden: bool
    follow: bool
    max_depth: int | None
    shard: str | None
    decode_timeout: float
    url_timeout: float
    url_max_bytes: int
    check_int8: bool


class ClassifierOptions(ModelOptions, total=False):
    """Options of a model that gives labels."""

    top_k: int


class ClassificationOptions(RunOptions, total=False):
    """Options of a run that gives labels."""

    top_k: int
    threshold: float | None
    label: Sequence[str] | None


_PARTS: dict[str, type] = {
    "inputs": Inputs,
    "limits": Limits,
    "model": ModelChoice,
    "compute": Compute,
    "labels": Labels,
}
"""The parts of a request that are options here, by its fields."""

_LISTS = ("ext", "exclude", "label")

_OF_WORKERS = ("devices", "engine", "address", "strict")
"""Options of a command alone, whose workers start as copies of its process."""

_Each = TypeVar("_Each")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _with_options(function: _Function) -> _Function:
    """Spell the function's `**options` out in its signature, with their defaults."""
    signature = inspect.signature(function)
    named = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    [options] = get_args(signature.parameters["options"].annotation)
    defaults = {each.name: each.default for part in (*_PARTS.values(), Resume) for each in fields(part)}
    named += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
        for name, annotation in inspect.get_annotations(options).items()
    ]
    function.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
    return function


@_with_options
def classify(
    inputs: Location | Iterable[Location] = (), **options: Unpack[ClassificationOptions]
) -> Generator[Prediction | Failure, None, None]:
    """The record of each image, as `beit classify` prints them: the same records in the same order.

    `inputs` are files, folders, globs and URLs; the options are those of the command line, with underscores. A broken
    image is a Failure in its place. Images are decoded in `workers` processes, which end when the iterator is closed;
    in a thread, the death of one is noticed after seconds, not at once.

    Raises UsageError for invalid options or inputs at once, ModelError and DeviceError while iterating, all of them
    BeitErrors.

    >>> import beitcli
    >>> for record in beitcli.classify("samples", model="demo", top_k=2, workers=0):
    ...     print(record.source.name, record.label)
    samples/boats.jpg ship
    samples/cat.jpg cat
    samples/coffee.jpg automobile
    """
    return _flattened(predictions(_request(options, inputs)))


@_with_options
def embed(
    inputs: Location | Iterable[Location] = (),
    *,
    pool: Pool = "mean",
    normalize: bool = False,
    half: bool = False,
    layer: int | None = None,
    **options: Unpack[RunOptions],
) -> Generator[Embedding | Failure, None, None]:
    """The features of each image in `.features`: as `beit embed` writes them, in input order.

    They are float32 of shape (hidden,), float16 if `half`; with `pool="patches"` float16 of shape (patches, hidden).
    `layer`, from 1, is the layer whose states are taken; without it the last. Otherwise as `classify`. Raises
    UsageError for models other than BEiT.
    """
    return _flattened(embeddings(_request(options, inputs), _encoding(pool, normalize, half, layer)))


class _LoadedModel(Generic[ResultRecord]):
    """A model in this process, called with images; the threads that call it share it."""

    def __init__(
        self, request: Request, task: Task[ResultRecord], again: "Callable[[], _LoadedModel[ResultRecord]]"
    ) -> None:
        from beitcli.model.inference_pool import InferencePool
        from beitcli.pipeline import Predictor

        compute = replace(request.compute, compile=bool(request.compute.compile))  # nobody knows how many images come
        settings = settings_for(replace(request, compute=compute), task.checkpoint, lambda _: 0, padded=False)
        self._again = again
        self._record = task.record
        self._preprocessing = settings.preprocessing
        self._decoding = replace(settings.decoding, seconds=0)
        self._batch_size = settings.batch_size
        self._pool = InferencePool(Predictor(settings, task.load, task.record).model(), settings.runtime)
        self._large_lock = threading.Lock()
        self._process = os.getpid()

    def __reduce__(self) -> "tuple[Callable[[], _LoadedModel[ResultRecord]], tuple[()]]":
        return self._again, ()

    def _records(self, items: Iterable[Item]) -> Iterator[ResultRecord | Failure]:
        """The records of the images in order; a batch is decoded while the model has the one before it."""
        if os.getpid() != self._process:
            raise BeitError(
                "the model was loaded before this process was forked, and cannot be used in it",
                "load it in each process, or start processes by `spawn`",
            )
        if isinstance(items, str | bytes | os.PathLike):
            raise TypeError(f"a {type(items).__name__} instead of a list of images: put it in brackets")
        numbered = enumerate(items)
        waiting: deque[tuple[list[tuple[Source, Outcome]], Future[list[Any]] | None]] = deque()
        while chunk := list(islice(numbered, self._batch_size)):
            outcomes = [self._decoded(*each) for each in chunk]
            waiting.append((outcomes, self._submit(outcomes)))
            if len(waiting) > 1:
                yield from self._finished(*waiting.popleft())
        for outcomes, results in waiting:
            yield from self._finished(outcomes, results)

    def _decoded(self, number: int, item: Item) -> "tuple[Source, Outcome]":
        """The image's source and pixels. Raises TypeError for an item that is no image."""
        import numpy as np
        from PIL import Image

        from beitcli.inputs.decode import outcome, outcome_of_image

        source = Source(f"item {number}")
        match item:
            case str() | os.PathLike():
                source = literal(os.fsdecode(item))
                if source.kind == "url":
                    return source, Failure(source, "not_found", "no file but a URL, which `beitcli.classify` fetches")
                return source, outcome(source, self._preprocessing, self._decoding, self._large_lock)
            case bytes():
                return source, outcome(Fetched(source, item), self._preprocessing, self._decoding, self._large_lock)
            case Image.Image():
                return source, outcome_of_image(source, item, self._preprocessing, self._decoding)
            case np.ndarray(shape=(height, width, 3), dtype=np.uint8) if height and width:
                image = Image.fromarray(np.ascontiguousarray(item))
                return source, outcome_of_image(source, image, self._preprocessing, self._decoding)
            case np.ndarray():
                raise TypeError(f"item {number} is an array of {item.dtype} {item.shape}: not uint8 (height, width, 3)")
        raise TypeError(f"item {number} is a {type(item).__name__}: not a path, bytes, a Pillow image or an array")

    def _submit(self, outcomes: "list[tuple[Source, Outcome]]") -> "Future[list[Any]] | None":
        """The results to come of the images that could be decoded; None if there is none."""
        import numpy as np
        import torch

        pixels = [outcome[0] for _, outcome in outcomes if not isinstance(outcome, Failure)]
        return self._pool.submit(torch.from_numpy(np.stack(pixels))) if pixels else None

    def _finished(
        self, outcomes: "list[tuple[Source, Outcome]]", results: "Future[list[Any]] | None"
    ) -> Iterator[ResultRecord | Failure]:
        found = iter(results.result() if results else ())
        for source, outcome in outcomes:
            if isinstance(outcome, Failure):
                yield outcome
            else:
                yield self._record(source, next(found), outcome[1], False)


class Classifier(_LoadedModel[Prediction]):
    """A classifier, loaded once and called with lists of images.

    An item is a file's path (str or PathLike), the bytes of a file, or pixels: a Pillow image or a uint8 array of shape
    (height, width, 3), RGB. What is no path is named by its place: `item 0`.

    Any number of threads may call it: each decodes its images, and the model takes one batch at a time. It can be
    pickled, and is then loaded again from its arguments. Images are decoded in this process, without a time limit:
    a decoder that crashes ends the process, unlike with `beitcli.classify`.

    Raises UsageError for invalid options, ModelError where the checkpoint is missing or broken, DeviceError.

    >>> import beitcli
    >>> model = beitcli.Classifier("demo", top_k=2)
    >>> [image, broken] = model(["samples/cat.jpg", b"no image"])
    >>> image.label, round(image.score, 1), len(image.scores)
    ('cat', 0.5, 2)
    >>> broken.code
    'not_an_image'
    """

    @_with_options
    def __init__(self, model: str = DEFAULT_MODEL, **options: Unpack[ClassifierOptions]) -> None:
        request = _model_request(model, options)
        checkpoint = open_model(request.model)
        labels = len(checkpoint.labels)
        self._columns = min(request.labels.top_k or labels, labels)
        task = classification_task("classify", checkpoint, request.labels.top_k)
        super().__init__(request, task, partial(Classifier, model, **options))

    def __call__(self, items: Iterable[Item]) -> list[Prediction | Failure]:
        """The record of each image, in order; a broken image is a Failure in its place.

        Raises TypeError for an item of another type, DeviceError where the device fails.
        """
        return [replace(record, columns=self._columns) for record in self._records(items)]


class Embedder(_LoadedModel[Embedding]):
    """A BEiT without its classifier, loaded once and called with lists of images, as a Classifier is.

    Features are the states behind its last layer, or behind another `layer`, from 1. Raises UsageError also for models
    other than BEiT.

    >>> import beitcli
    >>> encoder = beitcli.Embedder("demo", pool="cls", normalize=True)
    >>> features = encoder(["samples/cat.jpg", "samples/boats.jpg"])
    >>> features.shape, features.dtype
    ((2, 256), dtype('float32'))
    """

    @_with_options
    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        pool: Pool = "mean",
        normalize: bool = False,
        half: bool = False,
        layer: int | None = None,
        **options: Unpack[ModelOptions],
    ) -> None:
        request, kind = _model_request(model, options), _encoding(pool, normalize, half, layer)
        checkpoint = open_encoder(request.model, kind)
        self._kind, self._shape = kind, shape_of(checkpoint, beit_preprocessing(request.model, checkpoint), kind)
        task = encoding_task("embed", checkpoint, kind, FeatureCodec(None, "", self._shape, kind.dtype))
        again = partial(Embedder, model, pool=pool, normalize=normalize, half=half, layer=layer, **options)
        super().__init__(request, task, again)

    def __call__(self, items: Iterable[Item]) -> "np.ndarray[Any, Any]":
        """The features of the images: float32 of shape (images, hidden), float16 if `half`.

        With `pool="patches"` float16 of shape (images, patches, hidden). Raises BeitError for the first broken image,
        otherwise as a Classifier.
        """
        import numpy as np

        features = []
        for record in self._records(items):
            if isinstance(record, Failure):
                raise BeitError(
                    f"`{record.source.name}`: {record.message} ({record.code})", "`records` gives failures their place"
                )
            features.append(record.features)
        return np.stack(features) if features else np.empty((0, *self._shape), self._kind.dtype)

    def records(self, items: Iterable[Item]) -> list[Embedding | Failure]:
        """The record of each image, in order; a broken image is a Failure in its place."""
        return list(self._records(items))


def _request(options: Mapping[str, Any], inputs: Location | Iterable[Location] = ()) -> Request:
    """The request of a run with these options. Raises TypeError for unknown ones, UsageError for invalid ones."""
    locations = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    request = _requested({"inputs": [os.fsdecode(each) for each in locations], **options})
    request.check()
    return request


def _model_request(model: str, options: Mapping[str, Any]) -> Request:
    """The request of a model with these options. Raises TypeError for unknown ones, UsageError for invalid ones."""
    request = _requested({"model": model, **options})
    for part in (request.limits, request.model, request.compute, request.labels):
        part.check()
    return request


def _requested(options: dict[str, Any]) -> Request:
    lists = {
        name: [value] if isinstance(value, str) else list(value or ())
        for name, value in options.items()
        if name in _LISTS
    }
    left = options | lists
    parts = {
        name: part(
            **{each.name: left.pop(each.name) for each in fields(part) if each.name in left.keys() - _OF_WORKERS}
        )
        for name, part in _PARTS.items()
    }
    resume = Resume(shard=left.pop("shard", None), no_ledger=True)
    if left:
        raise TypeError(f"unknown option `{next(iter(left))}`")
    return Request(**parts, resume=resume)


def _encoding(pool: Pool, normalize: bool, half: bool, layer: int | None) -> Encoding:
    kind = Encoding(pool, normalize, half or pool == "patches", layer)
    check_values(kind)
    return kind


def _flattened(batches: Generator[list[_Each], None, None]) -> Generator[_Each, None, None]:
    with closing(batches):
        for records in batches:
            yield from records
