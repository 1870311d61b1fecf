"""A checkpoint's facts, as `beit models show` prints them."""

import json
from pathlib import Path

from beitcli.model.checkpoint import open_checkpoint
from beitcli.model.description import describe


def described(folder: Path) -> dict[str, str]:
    return dict(describe(open_checkpoint(str(folder), None)))


def test_a_beit(tiny_beit: Path) -> None:
    facts = described(tiny_beit)
    assert facts.pop("weights").startswith("model.safetensors, 0.")
    assert facts == {
        "model": str(tiny_beit),
        "folder": str(tiny_beit),
        "network": "beit, 2 layers, 32 states, 2 heads",
        "pixels": "32",
        "preprocessing": "bilinear to 32 x 32, mean 0.5 0.5 0.5, standard deviation 0.5 0.5 0.5",
        "labels": "5",
    }


def test_a_folder_that_lacks_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "beit", "num_labels": 3}))
    facts = described(tmp_path)
    assert (facts["network"], facts["weights"], facts["labels"]) == ("beit", "none", "3")
    assert facts["preprocessing"].startswith("the checkpoint has no preprocessor_config.json")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": [224, 192]}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "ViTImageProcessor"}))
    facts = described(tmp_path)
    assert (facts["pixels"], facts["preprocessing"]) == ("224 x 192", "ViTImageProcessor of transformers")
