"""The Python API: the command line's records, in every surrounding that people call it from."""

import doctest
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import fields
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from PIL import Image

import beitcli
from beitcli import BeitError, Classifier, Embedder, Failure, Prediction, api
from beitcli.errors import ModelError, UsageError
from beitcli.jobs.embed import embed as embed_into_file
from beitcli.jobs.observer import Silent
from beitcli.jobs.requests import Compute, Inputs, Labels, Limits, ModelChoice, Request, Resume
from beitcli.model.features import Encoding
from beitcli.outputs.writers import Layout, writer
from beitcli.records import Embedding
from tests.conftest import ROOT, SAMPLES

Beit = Callable[..., "subprocess.CompletedProcess[bytes]"]

CAT, BOATS = str(SAMPLES / "cat.jpg"), str(SAMPLES / "boats.jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, with a broken file before and between them."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("cat", "boats", "coffee"):
        shutil.copy(SAMPLES / f"{name}.jpg", folder)
    (folder / "a-broken.jpg").write_bytes(Path(CAT).read_bytes()[:500])
    (folder / "cat, again.png").write_bytes(b"")
    (folder / "notes.txt").touch()
    return folder


@pytest.fixture(scope="module")
def model() -> Classifier:
    return Classifier("demo", top_k=3, dtype="fp32")


def test_importing_it_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-c", "import beitcli; dir(beitcli); beitcli.__version__"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in process.stderr.splitlines() if "|" in line}
    assert "beitcli" in imported
    assert not imported & {"torch", "transformers", "PIL", "numpy", "typer", "rich", "tqdm", "huggingface_hub"}


def test_the_public_names() -> None:
    assert len(beitcli.__all__) <= 8
    assert {name for name in beitcli.__all__ if not getattr(beitcli, name).__doc__} == set()
    assert set(beitcli.__all__) < set(dir(beitcli))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        beitcli.nothing  # noqa: B018


@pytest.mark.parametrize("name", ["classify", "Classifier", "Embedder"])
def test_the_examples_of_the_docstrings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    [test] = doctest.DocTestFinder(recurse=False).find(getattr(beitcli, name), name, module=api, globs={})
    assert doctest.DocTestRunner().run(test) == (0, len(test.examples))
    assert test.examples


def test_every_option_of_a_request_is_an_option_here() -> None:
    requested = {field.name for part in (Inputs, Limits, ModelChoice, Compute, Labels) for field in fields(part)}
    run = set(api.ClassificationOptions.__annotations__) | set(api.RunOptions.__annotations__)
    of_commands = {"fp16", "devices", "engine", "address", "strict"}
    assert run | {"inputs"} == (requested | {"shard"}) - of_commands
    with pytest.raises(TypeError, match="unknown option `devices`"):
        beitcli.classify("photos", devices="all")  # type: ignore[call-arg]


def test_its_records_are_those_that_the_command_line_writes(folder: Path, beit: Beit) -> None:
    options = ("-m", "demo", "--dtype", "fp32", "-k", 2, "--format")
    written = beit("classify", folder, *options, "jsonl")
    records = list(beitcli.classify(folder, model="demo", dtype="fp32", top_k=2))
    stream = BytesIO()
    with writer(stream, Layout("jsonl", 2)) as rows:
        rows.write(records)
    assert stream.getvalue() == written.stdout
    assert [record.as_dict() for record in records] == [json.loads(line) for line in written.stdout.splitlines()]
    assert [type(record) for record in records] == [Failure, Prediction, Failure, Prediction, Prediction]


def test_a_data_frame_has_the_columns_of_the_csv(folder: Path) -> None:
    import pandas

    records = list(beitcli.classify([folder], model="demo", top_k=2, threshold=0.3, workers=0))
    assert {len(record.scores) for record in records if isinstance(record, Prediction)} == {1, 2}
    stream = BytesIO()
    with writer(stream, Layout("csv", 2)) as rows:
        rows.write(records)
    stream.seek(0)
    frame = pandas.DataFrame(record.as_row() for record in records)
    pandas.testing.assert_frame_equal(frame, pandas.read_csv(stream), check_dtype=False, check_exact=True)


def test_the_records_of_a_run_with_all_labels(folder: Path) -> None:
    rows = [record.as_row() for record in beitcli.classify(folder, model="demo", top_k=0, workers=0)]
    assert len({tuple(row) for row in rows}) == 1
    assert [name for name in rows[0] if name.startswith("label")][-1] == "label_10"


def test_filters_of_a_run(folder: Path) -> None:
    def names(**options: Any) -> list[str]:
        records = beitcli.classify(folder, model="demo", workers=0, **options)
        return [Path(record.source.name).name for record in records]

    assert names(ext="png") == ["cat, again.png"]
    assert names(exclude=("*cat*", "a-*")) == ["boats.jpg", "coffee.jpg"]
    assert names(label="cat", ext=["jpg"]) == ["a-broken.jpg", "cat.jpg"]
    assert sorted(names(shard="1/2") + names(shard="2/2")) == sorted(names())


def test_options_that_cannot_be(model: Classifier) -> None:
    with pytest.raises(UsageError, match="`batch_size=0`"):
        beitcli.classify("samples", batch_size=0)
    with pytest.raises(UsageError, match="`pool=max`: not one of mean, cls, patches"):
        Embedder("demo", pool="max")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="`dtype=int4`"):
        Classifier("demo", dtype="int4")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unknown option `topk`"):
        beitcli.classify("samples", topk=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="nothing to classify"):
        beitcli.classify([])
    with pytest.raises(UsageError, match="`no-such-folder` does not exist"):
        next(beitcli.classify("no-such-folder", model="demo"))
    with pytest.raises(ModelError, match="no-such-model"):
        Classifier("no-such-model")


def test_an_image_is_the_same_in_every_form(model: Classifier) -> None:
    image = Image.open(CAT)
    items: list[Any] = [CAT, Path(CAT), Path(CAT).read_bytes(), image, np.asarray(image)]
    records = model(items)
    assert [record.source.name for record in records] == [CAT, CAT, "item 2", "item 3", "item 4"]
    [path, *others] = [record.scores if isinstance(record, Prediction) else record for record in records]
    assert others == [path] * 4
    assert records[0].label == "cat"  # type: ignore[union-attr]


def test_a_pillow_image_is_turned_and_made_rgb(model: Classifier, tmp_path: Path) -> None:
    upright = Image.open(CAT)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "turned.png", exif=exif)
    deep = Image.fromarray(np.asarray(upright.convert("L")).astype(np.uint16) * 257)
    opened = Image.open(tmp_path / "turned.png")
    [straight, turned_back, grey, sixteen] = model([upright, opened, upright.convert("L"), deep])
    assert straight.scores == turned_back.scores  # type: ignore[union-attr]
    assert grey.scores == sixteen.scores  # type: ignore[union-attr]


def test_a_broken_image_is_a_failure_in_its_place(model: Classifier, folder: Path) -> None:
    cut = Image.open(BytesIO(Path(CAT).read_bytes()[:4000]))
    items: list[Any] = [
        b"",
        CAT,
        folder / "a-broken.jpg",
        "https://example.org/a.jpg",
        cut,
        b"no image",
        BOATS,
        tuple.__name__,
    ]
    records = model(items)
    codes = [record.code if isinstance(record, Failure) else record.label for record in records]
    assert codes == [
        *("empty_file", "cat", "truncated", "not_found", "truncated", "not_an_image", "ship", "not_found"),
    ]
    assert {len(record.as_row()) for record in records} == {2 + 3 * 3 + 2}
    with pytest.raises(BeitError, match=r"`item 1`: there are no bytes \(empty_file\)"):
        Embedder("demo")([CAT, b""])


def test_many_batches_keep_their_order(tiny_beit: Path) -> None:
    names = ["cat", "boats", "coffee"]
    images = {name: Image.open(SAMPLES / f"{name}.jpg").resize((32, 32)) for name in names}
    model = Classifier(str(tiny_beit), batch_size=4, dtype="fp32")
    alone = {name: model([image])[0].as_dict()["predictions"] for name, image in images.items()}
    wanted = [names[number % 3] for number in range(30)]
    records = model(images[name] for name in wanted)
    assert len(records) == 30
    for name, record in zip(wanted, records, strict=True):
        assert [score.label for score in record.scores] == [each["label"] for each in alone[name]]  # type: ignore[union-attr]
    assert model([]) == []


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (CAT, "put it in brackets"),
        (Path(CAT).read_bytes(), "put it in brackets"),
        ([3], "item 0 is a int"),
        ([CAT, np.zeros((3, 8, 8), np.uint8)], r"item 1 is an array of uint8 \(3, 8, 8\)"),
        ([np.zeros((8, 8, 3))], "item 0 is an array of float64"),
        ([np.zeros((0, 8, 3), np.uint8)], "item 0 is an array"),
    ],
)
def test_what_is_no_image_is_a_type_error(model: Classifier, items: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        model(items)


def test_features_are_those_of_a_file(folder: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "f.npy")
    compute, resume = Compute(dtype="fp32", workers=0), Resume(out=out)
    request = Request(Inputs([str(folder)]), model=ModelChoice("demo"), compute=compute, resume=resume, target=out)
    embed_into_file(request, Encoding("mean"), Silent())
    wanted = np.load(out)
    records = list(beitcli.embed(folder, model="demo", dtype="fp32"))
    assert [type(record) for record in records].count(Failure) == 2
    features = np.stack([record.features for record in records if not isinstance(record, Failure)])
    np.testing.assert_allclose(features, wanted, rtol=1e-4, atol=1e-5)
    encoder = Embedder("demo", dtype="fp32", batch_size=2)
    found = encoder.records(sorted(folder.glob("*.*g")))
    assert [type(record) for record in found] == [type(record) for record in records]
    images = [record.source.name for record in records if not isinstance(record, Failure)]
    np.testing.assert_allclose(encoder(images), wanted, rtol=1e-4, atol=1e-5)
    assert encoder([]).shape == (0, wanted.shape[1])
    patches = Embedder("demo", pool="patches")([CAT])
    assert (patches.ndim, patches.dtype) == (3, np.float16)


def test_features_of_a_layer_are_those_of_the_command(beit: Beit, tmp_path: Path) -> None:
    out = tmp_path / "f.npy"
    beit("embed", CAT, "-m", "demo", "--dtype", "fp32", "--layer", 3, "-o", out)
    [wanted] = np.load(out)
    [record] = beitcli.embed(CAT, model="demo", dtype="fp32", layer=3)
    assert isinstance(record, Embedding)
    np.testing.assert_allclose(record.features, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Embedder("demo", dtype="fp32", layer=3)([CAT])[0], wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="`layer=9`: `demo` has 8 layers"):
        Embedder("demo", layer=9)
    with pytest.raises(UsageError, match="not one of all"):
        Embedder("demo", layer="last")  # type: ignore[arg-type]


def test_threads_share_a_model(model: Classifier, folder: Path) -> None:
    items = [str(path) for path in sorted(folder.iterdir())]
    wanted = model(items)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(model, [items] * 8)) == [wanted] * 8


def test_a_run_in_a_thread(folder: Path) -> None:
    wanted = list(beitcli.classify(folder, model="demo", workers=1))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(beitcli.classify(folder, model="demo", workers=1)))
    thread.start()
    thread.join(120)
    assert found == wanted


def classified(items: list[str]) -> list[Any]:
    """In another process: a model of its own, and a run with the workers that such a process may have."""
    return [*Classifier("demo", top_k=3, dtype="fp32")(items), *beitcli.classify(items, model="demo", dtype="fp32")]


def called(model: Classifier, items: list[str]) -> list[Any]:
    return list(model(items))


@pytest.mark.slow
def test_spawned_processes(model: Classifier) -> None:
    wanted = model([CAT, BOATS])
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as executor:
        assert executor.submit(classified, [CAT, BOATS]).result()[:2] == wanted
        assert executor.submit(called, model, [CAT, BOATS]).result() == wanted
    with context.Pool(1) as pool:  # its processes are daemons, which may have no children
        found = pool.apply(classified, ([CAT, BOATS],))
    assert found[:2] == wanted
    assert [record.label for record in found[2:]] == ["cat", "ship"]


def test_a_model_is_pickled_as_its_arguments(model: Classifier) -> None:
    text = pickle.dumps(model)
    assert len(text) < 1000
    assert pickle.loads(text)([CAT]) == model([CAT])
    encoder = Embedder("demo", pool="cls", normalize=True)
    assert (pickle.loads(pickle.dumps(encoder))([CAT]) == encoder([CAT])).all()


def test_a_forked_process_is_told_that_the_model_is_not_its_own(model: Classifier) -> None:
    INHERITED.append(model)
    with multiprocessing.get_context("fork").Pool(1) as pool, pytest.raises(BeitError, match="forked"):
        pool.apply(call_inherited)


INHERITED: list[Classifier] = []


def call_inherited() -> None:
    INHERITED[0]([CAT])


def state_of_the_process() -> tuple[Any, ...]:
    handlers = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]
    threads = torch.get_num_threads(), ThreadPoolExecutor(1).submit(torch.get_num_threads).result()
    return handlers, dict(os.environ), threads, sys.unraisablehook, Image.MAX_IMAGE_PIXELS, list(warnings.filters)


def test_the_process_stays_as_it_is(folder: Path) -> None:
    before = state_of_the_process()
    assert len(list(beitcli.classify(folder, model="demo", workers=1))) == 5
    assert len(list(beitcli.embed(folder, model="demo", workers=1))) == 5
    assert Classifier("demo")([CAT])[0].label == "cat"  # type: ignore[union-attr]
    assert state_of_the_process() == before


def test_a_closed_run_leaves_no_process(folder: Path) -> None:
    run = beitcli.classify([folder] * 20, model="demo", workers=1)
    next(run)
    assert multiprocessing.active_children()
    run.close()
    assert not multiprocessing.active_children()


NOTEBOOK = """
import beitcli
model = beitcli.Classifier("demo")
alone = [record.label for record in model(["cat.jpg", "boats.jpg"])]
run = [record.label for record in beitcli.classify(["cat.jpg", "boats.jpg"], model="demo", workers=1)]
assert alone == run == ["cat", "ship"], (alone, run)
"""


@pytest.mark.slow
def test_in_a_notebook(folder: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)])
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    assert not [output for output in notebook.cells[0].outputs if output["output_type"] == "error"]


def test_in_a_web_server(model: Classifier) -> None:
    from fastapi import Body, FastAPI
    from fastapi.testclient import TestClient

    server = FastAPI()

    @server.post("/classify")
    def classify(data: Annotated[bytes, Body(media_type="image/jpeg")]) -> dict[str, Any]:
        [record] = model([data])
        return record.as_dict()

    bodies = [Path(CAT).read_bytes(), b"no image", Path(BOATS).read_bytes()]
    wanted = [model([body])[0].as_dict() for body in bodies]
    with TestClient(server) as client, ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda number: client.post("/classify", content=bodies[number % 3]).json(), range(50)))
    assert answers == [wanted[number % 3] for number in range(50)]


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_calls(tiny_beit: Path) -> None:
    model = Classifier(str(tiny_beit))
    data: list[Any] = [b"broken", (SAMPLES / "cat.jpg").read_bytes(), np.zeros((40, 40, 3), np.uint8)]

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    for _ in range(1000):
        model(data)
    before = resident()
    for _ in range(9000):
        model(data)
    assert resident() < before + 30_000_000
