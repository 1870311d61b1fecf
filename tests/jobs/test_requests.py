"""Requests: every field has its option on the command line, nothing else is an option of theirs; and their checks."""

import math
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from beitcli.cli.options import FLAGS
from beitcli.cli.training_options import TRAINING_FLAGS
from beitcli.errors import UsageError
from beitcli.inputs.sources import Walk
from beitcli.jobs.pretraining_requests import Pretraining, PretrainingRequest
from beitcli.jobs.requests import Compute, Inputs, Labels, Limits, ModelChoice, Request, Resume
from beitcli.jobs.training_requests import Recipe, TrainingImages, TrainingRequest
from beitcli.jobs.values import check_values

RECORDS = (Inputs, Limits, ModelChoice, Compute, Labels, Resume, TrainingImages, Recipe, Pretraining)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_every_field_has_its_option(record: type) -> None:
    assert list((FLAGS | TRAINING_FLAGS)[record]) == [field.name for field in fields(record)]


def test_every_record_of_a_request_has_options() -> None:
    parts = {field.type for request in (Request, TrainingRequest, PretrainingRequest) for field in fields(request)}
    assert parts - {str, bool, Walk, float | None} == set(FLAGS | TRAINING_FLAGS) == set(RECORDS)


REQUEST = Request(Inputs(["photo.jpg"]))


def with_value(record: Any, name: str, value: object) -> Request:
    part = next(field.name for field in fields(Request) if isinstance(getattr(REQUEST, field.name), record))
    return replace(REQUEST, **{part: replace(getattr(REQUEST, part), **{name: value})})


@pytest.mark.parametrize(
    ("record", "name", "value", "message"),
    [
        (Inputs, "max_depth", 0, "not an integer of 1 or more"),
        (Limits, "max_pixels", 0, "not an integer of 1 or more"),
        (Limits, "max_pixels", None, "not an integer of 1 or more"),
        (Limits, "url_max_bytes", -1, "not an integer of 1 or more"),
        (Limits, "decode_timeout", 0, "not a number from 0.001 to 86400.0"),
        (Limits, "decode_timeout", math.nan, "not a number from 0.001 to 86400.0"),
        (Limits, "url_timeout", math.inf, "not a number from 0.001 to 86400.0"),
        (ModelChoice, "image_size", 0, "not an integer of 1 or more"),
        (ModelChoice, "preprocess", "x", "not one of checkpoint, paper"),
        (Compute, "batch_size", 0, "not an integer from 1 to 4096"),
        (Compute, "batch_size", 4097, "not an integer from 1 to 4096"),
        (Compute, "batch_size", 8.5, "not an integer from 1 to 4096"),
        (Compute, "batch_size", "8", "not an integer from 1 to 4096"),
        (Compute, "workers", -1, "not an integer from 0 to 256"),
        (Compute, "workers", 257, "not an integer from 0 to 256"),
        (Compute, "dtype", "int4", "not one of auto, fp32, bf16, fp16, int8"),
        (Compute, "dtype", None, "not one of auto, fp32, bf16, fp16, int8"),
        (Compute, "device", "abacus", "no such device"),
        (Labels, "top_k", -1, "not an integer of 0 or more"),
        (Labels, "threshold", math.nan, "no score"),
        (Resume, "shard", "4/3", "no such part"),
    ],
)
def test_values_that_no_run_can_have(record: type, name: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(f'`{name}={value}`: {message}')}$"):
        with_value(record, name, value).check()


@pytest.mark.parametrize(
    ("record", "name", "values"),
    [
        (Inputs, "max_depth", (None, 1)),
        (Limits, "decode_timeout", (0.001, 1, 86_400)),
        (ModelChoice, "preprocess", ("checkpoint", "paper")),
        (Compute, "batch_size", (None, 1, 4096)),
        (Compute, "workers", (None, 0, 256)),
        (Compute, "dtype", ("auto", "fp32", "bf16", "fp16")),
        (Labels, "top_k", (0, 1, 10**6)),
    ],
)
def test_values_at_the_ends_of_their_ranges(record: type, name: str, values: tuple[object, ...]) -> None:
    for value in values:
        with_value(record, name, value).check()


def test_defaults_are_allowed_values() -> None:
    REQUEST.check()
    for record in RECORDS:
        check_values(record())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "not an integer of 1 or more"),
        ("batch_size", 4097, "not an integer from 1 to 4096"),
        ("lr", 2.0, "not a number from 1e-09 to 1.0"),
        ("from_scratch", "huge", "not one of tiny, small"),
        ("pool", "patches", "not one of mean, cls"),
    ],
)
def test_recipes_that_no_training_can_have(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(f'`{name}={value}`: {message}')}$"):
        replace(Recipe(), **{name: value}).check(32)


@pytest.mark.parametrize(("name", "value"), [("val_share", 0.95), ("max_errors", -1)])
def test_training_images_that_no_training_can_have(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^`{name}={value}`: not "):
        replace(TrainingImages("shapes"), **{name: value}).check(Walk())


def test_inputs_are_required() -> None:
    with pytest.raises(UsageError, match="nothing to classify"):
        Request(Inputs()).check()


def test_files_beside_the_output_are_shown_as_it_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "link.csv").symlink_to("there/a.csv")
    beside = {"a.csv": "", "./a.csv": "./", "there/a.csv": "there/", str(tmp_path / "a.csv"): f"{tmp_path}/"}
    for out, folder in (beside | {"link.csv": f"{tmp_path}/there/"}).items():
        requested = Request(Inputs(["images"]), resume=Resume(out), target=os.path.realpath(out))
        assert requested.shown(requested.ledger) == f"{folder}{Path(requested.ledger).name}"
