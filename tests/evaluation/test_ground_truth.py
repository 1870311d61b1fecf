"""Names of classes -> classes, by every matching rule; ambiguous and unknown names are errors."""

import re

import pytest

from beitcli.errors import UsageError
from beitcli.evaluation.ground_truth import Match, match
from beitcli.evaluation.wordnet import wordnet_ids
from beitcli.model.catalog import corrected_labels

LABELS = ("tabby, tabby cat", "crane", "drake, bird", "crane", "Bird", "5", "POLECAT, fitch", "polecat, ferret")


@pytest.mark.parametrize(
    ("name", "index", "by"),
    [
        ("tabby, tabby cat", 0, "name"),
        ("tabby cat", 0, "synonym"),
        ("bird", 2, "synonym"),
        ("Bird", 4, "name"),
        ("BIRD", 4, "name"),
        ("5", 5, "name"),
        ("3", 3, "index"),
        ("Tabby", 0, "synonym"),
        ("POLECAT", 6, "synonym"),
        ("polecat", 7, "synonym"),
    ],
)
def test_a_name_matches_by_the_first_rule_that_applies(name: str, index: int, by: str) -> None:
    assert match([name, name], LABELS) == {name: Match(index, by)}


@pytest.mark.parametrize("name", ["crane", "CRANE", "Polecat", "8", "-1", "03", "n01440764", "tabb"])
def test_unknown_or_ambiguous_names_are_errors(name: str) -> None:
    with pytest.raises(UsageError, match=f"no class for 1 of 2 labels: `{name}`"):
        match([name, "tabby"], LABELS)


def test_the_error_lists_names_with_the_nearest_ones() -> None:
    names = ["crane", "taby", *"stuvwxyz"]
    with pytest.raises(UsageError) as caught:
        match(names, LABELS)
    expected = "no class for 10 of 10 labels: `crane` (classes 1, 3 all have that name); `s`; `taby` (nearest: tabby"
    assert expected in re.sub("`[t-z]`; ", "", str(caught.value)).replace("`t`; ", "")
    assert str(caught.value).endswith("; and 5 more")
    assert "WordNet id" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("outputs", "index", "name"),
    [
        (1_000, 0, "n01440764"),
        (1_000, 281, "n02123045"),
        (1_000, 999, "n15075141"),
        (21_843, 9_205, "n03931044"),
        (21_843, 9_206, "n03931765"),
        (21_841, 9_205, "n03931765"),
        (21_841, 21_840, "n15102894"),
    ],
)
def test_an_id_is_an_output_of_a_model_of_imagenet(outputs: int, index: int, name: str) -> None:
    labels = [f"LABEL_{number}" for number in range(outputs)]
    assert match([name], labels) == {name: Match(index, "id")}
    assert match([name.upper()], labels) == {name.upper(): Match(index, "id")}


@pytest.mark.parametrize("outputs", [1_000, 21_843, 21_841])
def test_there_is_one_id_an_output_in_order(outputs: int) -> None:
    ids = wordnet_ids(outputs)
    assert len(ids) == outputs
    assert list(ids) == sorted(set(ids))
    assert all(re.fullmatch(r"n\d{8}", each) for each in ids)


def test_the_ids_of_22k_are_renumbered_as_its_labels_are() -> None:
    gaps = {key: each for key, each in enumerate(wordnet_ids(21_843)) if key not in (9_205, 15_027)}
    assert tuple(corrected_labels(gaps).values()) == wordnet_ids(21_841)


def test_no_other_number_of_outputs_has_ids() -> None:
    assert {wordnet_ids(outputs) for outputs in (0, 10, 999, 1_001, 21_842)} == {()}
