"""Pre-trainings in this process: what the folder holds, and what a next one takes over from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import BeitForMaskedImageModeling

from beitcli.errors import ModelError, UsageError
from beitcli.jobs.observer import Silent
from beitcli.jobs.pretrain import Pretrained, pretrain
from beitcli.jobs.pretraining_requests import Pretraining, PretrainingRequest
from beitcli.jobs.requests import Compute, Inputs
from beitcli.model.checkpoint import open_checkpoint
from beitcli.training.data import preparation
from beitcli.training.pretraining.initial_networks import Geometry, new_network
from beitcli.training.pretraining.tokenizers.protocol import TOKENIZER
from beitcli.training.recipes.finetune import adapted_network
from beitcli.training.recipes.sizes import ScratchShape
from tests.training.pretraining.dall_e_files import pickled_encoder
from tests.training.shapes import draw_classes

QUICK = {"size": "tiny", "image_size": 16, "vocab": 8, "epochs": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_classes(tmp_path_factory.mktemp("images") / "shapes", 20)


def run(images: Path, out: Path, **recipe: Any) -> Pretrained:
    request = PretrainingRequest(
        Inputs([str(images)]), str(out), Pretraining(**recipe), compute=Compute(workers=0, device="cpu")
    )
    return pretrain(request, Silent())


@pytest.fixture(scope="module")
def encoder(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an encoder that was pre-trained on the shapes."""
    folder = tmp_path_factory.mktemp("pretrained") / "encoder"
    run(images, folder, **QUICK)
    return folder


def test_transformers_loads_it_without_a_missing_or_unexpected_key(encoder: Path) -> None:
    network, loading = BeitForMaskedImageModeling.from_pretrained(encoder, output_loading_info=True)
    assert not any(loading.values())
    config = json.loads((encoder / "config.json").read_text())
    assert config["architectures"] == ["BeitForMaskedImageModeling"] and config["use_mask_token"]
    assert (network.config.vocab_size, network.config.image_size, network.config.patch_size) == (8, 16, 4)
    assert {path.name for path in encoder.iterdir()} >= {"preprocessor_config.json", TOKENIZER, "README.md"}
    assert len({path.stat().st_mode for path in encoder.iterdir()}) == 1
    assert open_checkpoint(str(encoder), None).is_pretrained_only


def test_the_card_has_the_scores_and_the_curve_their_last_point(encoder: Path) -> None:
    card, last = (encoder / "README.md").read_text(), (encoder / "training.jsonl").read_text().splitlines()[-1]
    assert "| loss (nats) |" in card and "of 8 occur" in card and "36 images" in card and "4 images held out" in card
    accuracy = f"{100 * json.loads(last)['accuracy']:.2f} %"
    assert f"| accuracy | {accuracy} |" in card


def test_decoded_and_kept_pixels_and_another_codebook_of_the_same_images_give_the_same_weights(
    images: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "MAX_KEPT", 0)
    run(images, tmp_path / "decoded", **QUICK)
    for name in ("model.safetensors", TOKENIZER):
        assert (tmp_path / "decoded" / name).read_bytes() == (encoder / name).read_bytes()


def test_a_model_goes_on_with_its_own_tokens_and_head(images: Path, encoder: Path, tmp_path: Path) -> None:
    facts = run(images, tmp_path / "next", model=str(encoder), epochs=1, batch_size=16, lr=1e-9).facts
    before, after = (load_file(folder / "model.safetensors") for folder in (encoder, tmp_path / "next"))
    assert (tmp_path / "next" / TOKENIZER).read_bytes() == (encoder / TOKENIZER).read_bytes()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)
    assert facts.vocabulary == 8 and "encoder`, pre-trained" in facts.description


def test_other_tokens_get_a_new_head_and_a_classifier_a_mask_token(
    images: Path, encoder: Path, tiny_beit: Path, tmp_path: Path
) -> None:
    run(images, tmp_path / "next", model=str(encoder), vocab=9, epochs=1, batch_size=16, lr=1e-9)
    before, after = (load_file(folder / "model.safetensors") for folder in (encoder, tmp_path / "next"))
    assert after["lm_head.weight"].shape[0] == 9
    kept = [name for name in before if name.startswith("beit.")]
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in kept)
    run(images, tmp_path / "of-classifier", model=str(tiny_beit), image_size=48, vocab=8, epochs=1, batch_size=16)
    network, loading = BeitForMaskedImageModeling.from_pretrained(tmp_path / "of-classifier", output_loading_info=True)
    assert not any(loading.values()) and network.config.image_size == 48


@pytest.mark.slow
def test_an_earlier_codebook_and_dalles_encoder_are_tokenizers_too(images: Path, encoder: Path, tmp_path: Path) -> None:
    recipe = {**QUICK, "vocab": None}
    run(images, tmp_path / "again", **recipe, tokenizer=str(encoder))
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (encoder / "model.safetensors").read_bytes()
    pickled_encoder(tmp_path / "encoder.pkl", legacy=True)
    facts = run(images, tmp_path / "dalle", **recipe, tokenizer=str(tmp_path / "encoder.pkl")).facts
    assert facts.vocabulary == 300 and "DALL-E" in facts.tokenizer
    run(images, tmp_path / "dalle-again", **recipe, tokenizer=str(tmp_path / "dalle"))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("dalle", "dalle-again")]
    assert weights[0] == weights[1]


def test_a_codebook_of_another_grid_is_refused(images: Path, encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tokens for 4 × 4 patches, and images of 32 pixels have 8 × 8"):
        run(images, tmp_path / "model", size="tiny", tokenizer=str(encoder))
    assert not (tmp_path / "model.part").exists()


def test_images_too_much_alike_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    for number in range(4):
        Image.fromarray(np.full((16, 16, 3), 60 * number, np.uint8)).save(tmp_path / "grey" / f"{number}.png")
    with pytest.raises(UsageError, match=r"`vocab=8`: the images have 3 distinct windows"):
        run(tmp_path / "grey", tmp_path / "model", **QUICK)
    assert not (tmp_path / "model.part").exists()


def test_images_that_cannot_be_read_are_allowed_only_up_to_a_number(images: Path, tmp_path: Path) -> None:
    folder = draw_classes(tmp_path / "shapes", 5)
    (folder / "red" / "000.png").write_bytes(b"nothing")
    with pytest.raises(UsageError, match="1 images cannot be read"):
        run(folder, tmp_path / "model", **QUICK)
    assert run(folder, tmp_path / "model", **QUICK, max_errors=1).facts.trained_on in (8, 9)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(UsageError, match="no validation image can be read"):
        run(folder, tmp_path / "none", **QUICK, max_errors=10)
    assert not (tmp_path / "none.part").exists()


def test_the_hub_out_of_reach_names_kmeans(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the Hub cannot be reached") as error:
        run(images, tmp_path / "model", size="base", tokenizer="dalle")
    assert "`tokenizer=kmeans`" in (error.value.hint or "")


def test_the_papers_recipe_runs_at_a_small_width(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops, AdamW, a shared table and no averaging: of a network whose width alone is not the paper's."""
    monkeypatch.setattr("beitcli.training.pretraining.initial_networks.SHAPES", {"base": ScratchShape(512, 1, 8)})
    recipe = {"size": "base", "image_size": 32, "patch_size": 8, "vocab": 8, "epochs": 2, "batch_size": 16}
    description = run(images, tmp_path / "model", **recipe).facts.description
    weights = load_file(tmp_path / "model" / "model.safetensors")
    assert "beit.encoder.relative_position_bias.relative_position_bias_table" in weights
    assert all(words in description for words in ("AdamW", "no averaging", "one random crop"))
    finetuned = adapted_network(open_checkpoint(str(tmp_path / "model"), None), ("a", "b"), 32, 0.1, seed=0).eval()
    assert finetuned.beit.shared_position_bias is None
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = BeitForMaskedImageModeling.from_pretrained(tmp_path / "model").beit(pixels).last_hidden_state
        assert torch.allclose(finetuned.beit(pixels).last_hidden_state, before, atol=1e-5)


def test_the_beginning_of_the_papers_networks() -> None:
    shape = ScratchShape(512, 4, 8)
    network = new_network(shape, Geometry(32, 8), 100, 0.1, 0.1, seed=3)
    body = network.beit.layers[1]
    for weight in (network.lm_head.weight, body.mlp.fc1.weight, network.beit.embeddings.mask_token):
        values = weight.detach()
        assert values.abs().max() <= 0.02 and 0.009 < values.std() < 0.012
    for number, layer in enumerate(network.beit.layers, start=1):
        for linear in (layer.attention.o_proj, layer.mlp.fc2):
            assert float(linear.weight.detach().abs().max()) == pytest.approx(0.02 / (2 * number) ** 0.5, rel=1e-3)
    assert network.beit.shared_position_bias is not None and body.relative_position_bias is None
    assert not network.beit.shared_position_bias.relative_position_bias_table.any()
