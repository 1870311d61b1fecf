"""Folders and aliases become checkpoints: config, labels and weights, or an error message of one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from beitcli.errors import ModelError, UsageError
from beitcli.model.catalog import BY_ALIAS, DEMO_FOLDER, KNOWN, has_smaller
from beitcli.model.checkpoint import find_repository, open_checkpoint
from beitcli.model.classifier import PixelClassifier
from beitcli.model.preprocessing import checkpoint_preprocessing
from beitcli.model.runtime import Runtime

FIELD = Path(__file__).parent.parent / "field"
ST, BIN = "model.safetensors", "pytorch_model.bin"


def put_bin(folder: Path, content: Any, **options: Any) -> None:
    (folder / ST).unlink()
    torch.save(content, folder / BIN, **options)


def put_shards(folder: Path, name: str, save: Callable[[Any, Path], None]) -> None:
    tensors = load_file(folder / ST)
    stem, suffix = name.split(".")
    weight_map = {key: f"{stem}-{index % 3}.{suffix}" for index, key in enumerate(sorted(tensors))}
    (folder / ST).unlink()
    for part in set(weight_map.values()):
        save({key: tensors[key] for key in tensors if weight_map[key] == part}, folder / part)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def reshard(folder: Path) -> None:
    from transformers import BeitForImageClassification

    network = BeitForImageClassification.from_pretrained(folder)
    (folder / ST).unlink()
    network.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 2


def add_bin(folder: Path) -> None:
    torch.save({"classifier.weight": torch.zeros(1)}, folder / BIN)


@pytest.mark.parametrize(
    ("change", "file"),
    [
        pytest.param(lambda folder: None, ST, id="safetensors"),
        pytest.param(add_bin, ST, id="safetensors before bin"),
        pytest.param(reshard, f"{ST}.index.json", id="sharded by transformers"),
        pytest.param(lambda folder: put_shards(folder, ST, save_file), f"{ST}.index.json", id="sharded"),
        pytest.param(lambda folder: put_bin(folder, load_file(folder / ST)), BIN, id="bin"),
        pytest.param(
            lambda folder: put_bin(folder, load_file(folder / ST), _use_new_zipfile_serialization=False),
            BIN,
            id="old bin",
        ),
        pytest.param(lambda folder: put_shards(folder, BIN, torch.save), f"{BIN}.index.json", id="sharded bin"),
    ],
)
def test_weights_are_found_in_every_format(
    change: Callable[[Path], None], file: str, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    expected = load_file(tiny_beit / ST)
    folder = copy_of(tiny_beit)
    change(folder)
    checkpoint = open_checkpoint(str(folder), None)
    assert checkpoint.weight_file() == str(folder / file)
    tensors = checkpoint.tensors()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickle"])
@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
def test_code_in_a_bin_does_not_run(
    zipped: bool,
    sharded: bool,
    tiny_beit: Path,
    tmp_path: Path,
    trap: Callable[[Path], object],
    copy_of: Callable[..., Path],
) -> None:
    folder, sprung = copy_of(tiny_beit), tmp_path / "sprung"
    put_bin(folder, {"classifier.weight": trap(sprung)}, _use_new_zipfile_serialization=zipped)
    if sharded:
        (folder / f"{BIN}.index.json").write_text(json.dumps({"weight_map": {"classifier.weight": "part.bin"}}))
        (folder / BIN).rename(folder / "part.bin")
    with pytest.raises(ModelError, match="cannot read the weights") as raised:
        open_checkpoint(str(folder), None).tensors()
    assert "weights_only" not in str(raised.value)
    assert not sprung.exists()
    torch.load(next(folder.glob("*.bin")), weights_only=False)
    assert sprung.exists()


def put_index(folder: Path, weight_map: Any) -> None:
    (folder / ST).unlink()
    (folder / f"{ST}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def truncate(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def truncated_bin(folder: Path) -> None:
    put_bin(folder, load_file(folder / ST))
    truncate(folder / BIN, 0.9)


LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 132\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda folder: (folder / ST).unlink(), "no weights", id="none"),
        pytest.param(lambda folder: truncate(folder / ST, 0.9), ST, id="truncated"),
        pytest.param(lambda folder: truncate(folder / ST, 0), ST, id="empty"),
        pytest.param(lambda folder: (folder / ST).write_bytes(LFS_POINTER), ST, id="LFS pointer"),
        pytest.param(truncated_bin, BIN, id="truncated bin"),
        pytest.param(lambda folder: put_bin(folder, [torch.zeros(1)]), "not a mapping", id="bin of a list"),
        pytest.param(
            lambda folder: put_bin(folder, {"model": {"a": torch.zeros(1)}}), "not a mapping", id="nested bin"
        ),
        pytest.param(lambda folder: put_index(folder, {"a": "gone.safetensors"}), "`gone.safetensors`", id="lost part"),
        pytest.param(lambda folder: put_index(folder, {}), "weight_map", id="empty index"),
        pytest.param(lambda folder: put_index(folder, ["a"]), "weight_map", id="index of a list"),
        pytest.param(lambda folder: put_index(folder, {"a": 1}), "weight_map", id="index of numbers"),
    ],
)
def test_weights_that_cannot_be_read(
    change: Callable[[Path], Any], message: str, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    folder = copy_of(tiny_beit)
    change(folder)
    with pytest.raises(ModelError, match=message) as raised:
        open_checkpoint(str(folder), None).tensors()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"{", b"", b"[]", b'"text"', b'{"a": "\xff"}'], ids=repr)
def test_files_that_are_not_json(file: str, content: bytes, tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    folder = copy_of(tiny_beit)
    (folder / file).write_bytes(content)
    with pytest.raises(ModelError, match=f"cannot read `{folder / file}`"):
        open_checkpoint(str(folder), None)


def test_a_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json") as raised:
        open_checkpoint(str(tmp_path), None)
    assert "model.safetensors" in str(raised.value.hint)


def test_a_folder_without_processor_file(tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    folder = copy_of(tiny_beit)
    (folder / "preprocessor_config.json").unlink()
    assert open_checkpoint(str(folder), None).processor is None


def nest_processor(folder: Path, **changes: Any) -> dict[str, Any]:
    """Move the image processor into the layout of transformers 5."""
    alone = folder / "preprocessor_config.json"
    processor = json.loads(alone.read_text()) | changes
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": processor, "processor_class": "X"}))
    alone.unlink()
    return dict(processor)


def test_the_processor_may_be_in_the_layout_of_transformers_5(tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    folder = copy_of(tiny_beit)
    before = open_checkpoint(str(folder), None)
    nested = nest_processor(folder)
    checkpoint = open_checkpoint(str(folder), None)
    assert checkpoint.processor == before.processor == nested
    files = [f"{folder}/{name}" for name in ("config.json", "processor_config.json", ST)]
    assert checkpoint.files() == files
    shutil.copy(tiny_beit / "preprocessor_config.json", folder)  # as transformers, which does not read this one then
    assert open_checkpoint(str(folder), None).files() == files


def test_a_processor_of_texts_is_none_of_images(tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    folder = copy_of(tiny_beit)
    (folder / "processor_config.json").write_text('{"processor_class": "BeitProcessor"}')
    assert f"{folder}/preprocessor_config.json" in open_checkpoint(str(folder), None).files()
    (folder / "processor_config.json").write_text('{"image_processor": 7}')
    with pytest.raises(ModelError, match=r"cannot read `.*processor_config\.json`: not a JSON object"):
        open_checkpoint(str(folder), None)


def test_weights_may_be_named_by_the_config(tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    folder = copy_of(tiny_beit, transformers_weights="better.safetensors")
    with pytest.raises(ModelError, match="has no weights") as raised:
        open_checkpoint(str(folder), None).weight_file()
    assert "better.safetensors" in str(raised.value.hint)
    shutil.copy(folder / ST, folder / "better.safetensors")
    assert open_checkpoint(str(folder), None).weight_file() == f"{folder}/better.safetensors"


@pytest.mark.parametrize(
    ("model_type", "peft", "read"),
    [("beit", True, 0), ("vit", False, 1), ("vit", True, 3)],
    ids=["BEiT", "ViT", "ViT, with peft"],
)
def test_files_that_transformers_reads_count_for_other_architectures(
    model_type: str, peft: bool, read: int, tiny_beit: Path, copy_of: Callable[..., Path],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    configs = ["config.json", "config.5.0.0.json", "config.9.0.0.json"]
    folder = copy_of(tiny_beit, model_type=model_type, configuration_files=configs)
    others = ["config.5.0.0.json", "adapter_config.json", "adapter_model.safetensors"]
    for name in others:
        (folder / name).write_text("{}")
    if peft:
        (tmp_path / "peft").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
    names = ["config.json", "preprocessor_config.json", ST, *others[:read]]
    assert open_checkpoint(str(folder), None).files() == [f"{folder}/{name}" for name in names]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bse-224", "base-224"),
        ("large384", "large-384"),
        ("Demo", "demo"),
        ("beit-large-512", "large-512"),
        ("qqqq", "`beit models`"),
        ("./no/such/folder", "`beit models`"),
        ("/no/such/folder", "`beit models`"),
        ("~/no/such/folder", "`beit models`"),
        ("no/such/folder", "`beit models`"),
        ("two words/and more", "`beit models`"),
        ("", "`beit models`"),
    ],
)
def test_unknown_names(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=f"`{name}` is neither an alias, a folder nor a Hub id") as raised:
        open_checkpoint(name, None)
    assert hint in str(raised.value.hint).removeprefix("nearest aliases: ").split(", ")[0]


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        pytest.param({}, ("ant", "bee", "cow, moo cow", "dog", "eel"), id="as they are"),
        pytest.param({"id2label": {"0": "a", "1": "a", "2": "a"}}, ("a", "a", "a"), id="duplicates"),
        pytest.param({"id2label": {"2": "c", "0": "a", "1": "b"}}, ("a", "b", "c"), id="another order"),
        pytest.param({"id2label": {"0": 7, "1": None}}, ("7", "None"), id="not text"),
        pytest.param({"id2label": None}, ("LABEL_0", "LABEL_1"), id="none"),
        pytest.param({"id2label": {}}, ("LABEL_0", "LABEL_1"), id="empty"),
        pytest.param({"id2label": None, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2"), id="only their number"),
    ],
)
def test_labels(
    changes: dict[str, Any], labels: tuple[str, ...], tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    assert open_checkpoint(str(copy_of(tiny_beit, **changes)), None).labels == labels


ODD_CONFIGS = [
    {"patch_size": None},
    {"patch_size": 0},
    {"patch_size": [8, 4]},
    {"image_size": "32"},
    {"num_hidden_layers": "2"},
    {"num_attention_heads": 0},
    {"num_attention_heads": 3},
    {"layer_norm_eps": "small"},
]


@pytest.mark.parametrize("changes", ODD_CONFIGS, ids=repr)
def test_invalid_configs(changes: dict[str, Any], tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    with pytest.raises(ModelError):
        checkpoint = open_checkpoint(str(copy_of(tiny_beit, **changes)), None)
        PixelClassifier(checkpoint, checkpoint_preprocessing(checkpoint.processor, None), Runtime("cpu", "fp32"), 1)


def test_an_invalid_number_of_labels(tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="num_labels"):
        open_checkpoint(str(copy_of(tiny_beit, id2label=None, num_labels="x")), None)


@pytest.mark.parametrize("id2label", [["a", "b"], {"first": "a"}, "a"], ids=repr)
def test_invalid_labels(id2label: Any, tiny_beit: Path, copy_of: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="id2label"):
        open_checkpoint(str(copy_of(tiny_beit, id2label=id2label)), None)


GAP_22K = (9205, 15027)


@pytest.mark.parametrize(
    ("missing", "at_9205", "at_15026"),
    [
        pytest.param(GAP_22K, "class 9206", "class 15028", id="the gap of 22k"),
        pytest.param((), "class 9205", "class 15026", id="no gap"),
    ],
)
def test_the_gap_of_22k_is_corrected(
    missing: tuple[int, ...], at_9205: str, at_15026: str, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    id2label = {str(key): f"class {key}" for key in range(21_843) if key not in missing}
    labels = open_checkpoint(str(copy_of(tiny_beit, id2label=id2label)), None).labels
    assert len(labels) == 21_843 - len(missing)
    assert (labels[9204], labels[9205], labels[15026]) == ("class 9204", at_9205, at_15026)


def labels_but(size: int, missing: tuple[int, ...]) -> dict[str, str]:
    return {str(key): f"class {key}" for key in range(size) if key not in missing}


@pytest.mark.parametrize(
    ("id2label", "message"),
    [
        pytest.param(None, "starts at 1,", id="from 1"),  # the file from the field
        pytest.param({"1": "a"}, "starts at 1,", id="one label, from 1"),
        pytest.param({"-1": "a", "0": "b"}, "starts at -1,", id="from below 0"),
        pytest.param({"0": "a", "1": "b", "3": "d"}, "has 3 but not 2,", id="gap"),
        pytest.param(labels_but(21_843, (9205, 15026)), "has 21842 but not 9205,", id="another gap of 22k"),
        pytest.param(labels_but(21_844, GAP_22K), "has 21843 but not 9205,", id="another size than 22k"),
        pytest.param(labels_but(21_843, (9205,)), "has 21842 but not 9205,", id="half the gap of 22k"),
    ],
)
def test_labels_that_do_not_number_the_outputs_are_refused(
    id2label: dict[str, str] | None, message: str, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    folder = copy_of(tiny_beit, id2label=id2label)
    if id2label is None:
        shutil.copy(FIELD / "labels-from-1-config.json", folder / "config.json")
    with pytest.raises(ModelError) as raised:
        open_checkpoint(str(folder), None)
    assert f"the id2label of `{folder}` {message}" in str(raised.value)
    assert "from 0" in str(raised.value.hint)


ACTIVATIONS = [
    ({}, "softmax"),
    ({"problem_type": "single_label_classification"}, "softmax"),
    ({"problem_type": "multi_label_classification"}, "sigmoid"),
    ({"problem_type": "regression"}, "none"),
    ({"id2label": {"0": "a"}}, "sigmoid"),
    ({"id2label": None, "num_labels": 1}, "sigmoid"),
    ({"id2label": {"0": "a"}, "problem_type": "single_label_classification"}, "sigmoid"),
    ({"id2label": {"0": "a"}, "problem_type": "regression"}, "none"),
]


@pytest.mark.parametrize(("changes", "activation"), ACTIVATIONS, ids=str)
def test_the_activation_is_that_of_the_pipeline(
    changes: dict[str, Any], activation: str, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    assert open_checkpoint(str(copy_of(tiny_beit, **changes)), None).activation == activation


@pytest.mark.parametrize("file", [ST, BIN])
@pytest.mark.parametrize("kind", ["BeitForImageClassification", "BeitModel", "BeitForMaskedImageModeling"])
def test_parameters_may_have_their_names_in_memory(kind: str, file: str, tmp_path: Path) -> None:
    import transformers

    config = transformers.BeitConfig(
        hidden_size=32, num_hidden_layers=11, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        use_relative_position_bias=True, use_shared_relative_position_bias=True, use_absolute_position_embeddings=True,
        use_mask_token=True,
    )  # fmt: skip
    network = getattr(transformers, kind)(config)
    for parameter in network.parameters():
        parameter.data = torch.randn_like(parameter)
    network.save_pretrained(tmp_path)
    expected = dict(open_checkpoint(str(tmp_path), None).tensors())
    assert "beit.encoder.layer.10.attention.attention.query.weight" in expected
    in_memory = network.state_dict()
    assert any(name.endswith("layers.10.attention.q_proj.weight") for name in in_memory)
    (tmp_path / ST).unlink()
    (save_file if file == ST else torch.save)(in_memory, tmp_path / file)
    tensors = open_checkpoint(str(tmp_path), None).tensors()
    assert tensors.keys() == expected.keys()
    assert len(tensors) == len(in_memory)
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("file", [ST, BIN, "model-1.safetensors"])
@pytest.mark.parametrize("model_type", ["beit", "vit"])
def test_a_git_lfs_pointer_is_reported_as_such(
    file: str, model_type: str, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    folder = copy_of(tiny_beit, model_type=model_type)
    if file.startswith("model-"):
        put_shards(folder, ST, save_file)
    else:
        (folder / ST).unlink()
    (folder / file).write_bytes(LFS_POINTER)
    with pytest.raises(ModelError, match=f"`{folder / file}` is a Git LFS pointer") as raised:
        open_checkpoint(str(folder), None).weight_file()
    assert "`git lfs pull`" in str(raised.value.hint)


@pytest.mark.parametrize(
    ("changes", "multi_label", "is_beit"),
    [
        ({}, False, True),
        ({"problem_type": "multi_label_classification"}, True, True),
        ({"problem_type": "single_label_classification", "model_type": "vit"}, False, False),
    ],
)
def test_kinds_of_checkpoints(
    changes: dict[str, Any], multi_label: bool, is_beit: bool, tiny_beit: Path, copy_of: Callable[..., Path]
) -> None:
    checkpoint = open_checkpoint(str(copy_of(tiny_beit, **changes)), None)
    assert (checkpoint.multi_label, checkpoint.is_beit, checkpoint.is_demo) == (multi_label, is_beit, False)


def test_the_demo_is_computed_in_float32_by_transformers_too() -> None:
    from transformers import AutoModelForImageClassification

    network = AutoModelForImageClassification.from_pretrained(DEMO_FOLDER)
    with torch.no_grad():
        logits = network(pixel_values=torch.zeros(1, 3, 32, 32)).logits
    assert (network.dtype, logits.dtype) == (torch.float32, torch.float32)
    assert {tensor.dtype for tensor in load_file(Path(DEMO_FOLDER) / ST).values()} == {torch.float16}


def test_the_demo_is_bundled() -> None:
    checkpoint = open_checkpoint("demo", None)
    assert checkpoint.is_demo
    assert checkpoint.is_beit
    assert checkpoint.folder == DEMO_FOLDER
    assert checkpoint.labels[0] == "airplane"
    parameters = sum(tensor.numel() for tensor in checkpoint.tensors().values())
    assert (len(checkpoint.labels), round(parameters / 1e6, 1)) == (10, BY_ALIAS["demo"].parameters)


def test_a_folder_wins_over_the_hub_and_an_alias_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("me/model", "base-224"):
        Path(name).mkdir(parents=True)
    assert not find_repository("me/model", None).on_hub
    with pytest.raises(UsageError, match="`revision=v1`"):
        find_repository("me/model", "v1")
    assert find_repository("base-224", "v1").location == "microsoft/beit-base-patch16-224"
    assert find_repository("me/other", "v1").revision == "v1"


def test_the_catalog_has_the_published_figures() -> None:
    published = {
        "base-224": (85.2, 97.6),
        "base-384": (86.8, 98.1),
        "large-224": (87.4, 98.3),
        "large-384": (88.4, 98.6),
        "large-512": (88.60, 98.66),
    }
    assert {alias: (BY_ALIAS[alias].top1, BY_ALIAS[alias].top5) for alias in published} == published
    assert {known.alias for known in KNOWN if known.top1} == {*published, "demo"}
    for alias in published:
        size, pixels = alias.split("-")
        assert BY_ALIAS[alias].location == f"microsoft/beit-{size}-patch16-{pixels}"
        assert BY_ALIAS[alias].pixels == int(pixels)
    assert len(BY_ALIAS) == len(KNOWN)


def test_the_smallest_of_its_labels_has_no_smaller() -> None:
    assert {known.alias for known in KNOWN if not has_smaller(known.location)} == {
        *("base-224", "base-224-22k", "base-224-pt22k", "demo"),
    }
    assert not has_smaller("./my-own")
