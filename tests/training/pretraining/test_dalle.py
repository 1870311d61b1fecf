"""DALL-E's encoder: its tokens from every form of its files, and pickles that are none."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.flava.modeling_flava import FlavaImageCodebook

from beitcli.errors import ModelError, UsageError
from beitcli.training.pretraining.tokenizers.dalle import DalleTokenizer, open_encoder
from beitcli.training.pretraining.tokenizers.protocol import TOKENIZER
from beitcli.training.pretraining.tokenizers.saved import open_tokenizer
from tests.training.pretraining.dall_e_files import Encoder, pickled_encoder, save_as_published

FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


@pytest.fixture
def reference(tmp_path: Path) -> Encoder:
    return pickled_encoder(tmp_path / "encoder.pkl", legacy=False)


def views() -> torch.Tensor:
    colours = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(colours, (64, 64), mode="bicubic").clamp(0, 1)


def check_agreement(tokenizer: DalleTokenizer, reference: Encoder) -> None:
    mapped = 0.8 * views() + 0.1
    logits = reference(mapped)
    tokens = tokenizer(views())
    assert len(tokens.unique()) >= 100
    assert torch.equal(tokens, logits.argmax(1).flatten(1))
    assert torch.equal(tokenizer.encoder(mapped), logits)


@FORMATS
def test_tokens_and_logits_are_those_of_openais_encoder(tmp_path: Path, legacy: bool) -> None:
    reference = pickled_encoder(tmp_path / "encoder.pkl", legacy)
    check_agreement(open_encoder(str(tmp_path / "encoder.pkl")), reference)


@pytest.mark.parametrize("safe", [False, True], ids=["bin", "safetensors"])
def test_a_folder_of_transformers_gives_the_same_tokens(tmp_path: Path, reference: Encoder, safe: bool) -> None:
    encoder = open_encoder(str(tmp_path / "encoder.pkl")).encoder
    encoder.save_pretrained(tmp_path / "codebook")
    if not safe:
        torch.save(encoder.state_dict(), tmp_path / "codebook" / "pytorch_model.bin")
        (tmp_path / "codebook" / "model.safetensors").unlink()
    assert isinstance(encoder, FlavaImageCodebook)
    check_agreement(open_encoder(str(tmp_path / "codebook")), reference)


def test_an_earlier_result_names_its_encoder(tmp_path: Path, reference: Encoder) -> None:
    path = tmp_path / TOKENIZER
    open_encoder(str(tmp_path / "encoder.pkl")).save(str(path))
    assert path.stat().st_size < 1000
    again = open_tokenizer(str(path))
    assert isinstance(again, DalleTokenizer)
    check_agreement(again, reference)
    pickled_encoder(tmp_path / "encoder.pkl", legacy=False, seed=1)
    with pytest.raises(UsageError, match="no longer the encoder"):
        open_tokenizer(str(path))


class Hostile:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, function: Callable[..., Any], *arguments: str) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self._call


@FORMATS
@pytest.mark.parametrize("function", [os.mkdir, os.system, exec, torch.load], ids=lambda each: each.__name__)
def test_a_hostile_pickle_is_refused_and_runs_nothing(
    tmp_path: Path, legacy: bool, function: Callable[..., Any]
) -> None:
    trace = tmp_path / "it-ran"
    command = {
        os.mkdir: str(trace),
        os.system: f"touch {trace}",
        exec: f"open({str(trace)!r}, 'w')",
        torch.load: str(trace),
    }[function]
    encoder = pickled_encoder(tmp_path / "encoder.pkl", legacy)
    encoder.blocks.hook = Hostile(function, command)  # type: ignore[assignment]
    save_as_published(encoder, tmp_path / "encoder.pkl", legacy)
    with pytest.raises(UsageError, match="no DALL-E encoder"):
        open_encoder(str(tmp_path / "encoder.pkl"))
    assert not trace.exists()


@pytest.mark.parametrize("where", ["magic number", "whole file"])
def test_a_plain_pickle_in_place_of_a_file_of_torch_runs_nothing(tmp_path: Path, where: str) -> None:
    trace = tmp_path / "it-ran"
    hostile = pickle.dumps(Hostile(os.mkdir, str(trace)), protocol=2)
    legacy = tmp_path / "legacy.pkl"
    pickled_encoder(legacy, legacy=True)
    content = legacy.read_bytes()
    rest = content[content.index(b".") + 1 :] if where == "magic number" else b""
    (tmp_path / "encoder.pkl").write_bytes(hostile + rest)
    with pytest.raises(UsageError, match="no DALL-E encoder"):
        open_encoder(str(tmp_path / "encoder.pkl"))
    assert not trace.exists()


def other_files() -> dict[str, bytes]:
    """Contents of files that are no encoder."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model/data.pkl", pickle.dumps({}))
        file.writestr("model/constants.pkl", pickle.dumps(()))
    tensors, module = io.BytesIO(), io.BytesIO()
    torch.save({"blocks.input.w": torch.zeros(2, 3)}, tensors)
    torch.save(torch.nn.Linear(2, 2), module)
    return {
        "empty": b"",
        "text": b"nothing",
        "torchscript": archive.getvalue(),
        "tensors": tensors.getvalue(),
        "another module": module.getvalue(),
    }


@pytest.mark.parametrize("name", other_files())
def test_a_file_that_is_no_encoder_is_a_usage_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "encoder.pkl").write_bytes(other_files()[name])
    with pytest.raises(UsageError, match="no DALL-E encoder"):
        open_encoder(str(tmp_path / "encoder.pkl"))


def test_a_cut_encoder_and_one_of_another_shape_are_usage_errors(tmp_path: Path, reference: Encoder) -> None:
    content = (tmp_path / "encoder.pkl").read_bytes()
    (tmp_path / "encoder.pkl").write_bytes(content[: len(content) // 2])
    with pytest.raises(UsageError, match="no DALL-E encoder"):
        open_encoder(str(tmp_path / "encoder.pkl"))
    del reference.blocks.group_2
    save_as_published(reference, tmp_path / "encoder.pkl", legacy=False)
    with pytest.raises(UsageError, match="no DALL-E encoder"):
        open_encoder(str(tmp_path / "encoder.pkl"))


def test_another_checkpoint_is_a_usage_error_and_an_absent_one_names_kmeans(tiny_beit: Path) -> None:
    with pytest.raises(UsageError, match="its model_type is beit"):
        open_encoder(str(tiny_beit))
    with pytest.raises(ModelError, match="the Hub cannot be reached") as error:
        open_encoder("facebook/flava-image-codebook")
    assert error.value.hint and "`tokenizer=kmeans`" in error.value.hint
