"""Names of classes -> classes, by every matching rule; ambiguous and unknown names are errors."""

import re
from pathlib import Path

import pytest

from beitcli.errors import UsageError
from beitcli.evaluation.ground_truth import Match, match
from beitcli.evaluation.wordnet import wordnet_ids
from beitcli.inputs.labelled import by_table
from beitcli.model.catalog import corrected_labels

FIELD = Path(__file__).parent.parent / "field"

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
        ("Tabby", 0, "synonym"),
        ("POLECAT", 6, "synonym"),
        ("polecat", 7, "synonym"),
    ],
)
def test_a_name_matches_by_the_first_rule_that_applies(name: str, index: int, by: str) -> None:
    assert match([name, name], LABELS) == {name: Match(index, by)}


@pytest.mark.parametrize("name", ["crane", "CRANE", "Polecat", "3", "8", "-1", "03", "n01440764", "tabb"])
def test_unknown_or_ambiguous_names_are_errors(name: str) -> None:
    with pytest.raises(UsageError, match=f"no (class for 1 of 2 labels:|one reading .* no class for) `{name}`"):
        match([name, "tabby"], LABELS)


def test_the_error_lists_names_with_the_nearest_ones() -> None:
    names = ["crane", "taby", *"stuvwxyz"]
    with pytest.raises(UsageError) as caught:
        match(names, LABELS)
    expected = "no class for 10 of 10 labels: `crane` (classes 1, 3 all have that name); `s`; `taby` (nearest: tabby"
    assert expected in re.sub("`[t-z]`; ", "", str(caught.value)).replace("`t`; ", "")
    assert str(caught.value).endswith("; and 5 more")
    assert "WordNet id" in str(caught.value.hint)


NUMBERED = ("1", "2", "3")
"""Classes that are named by numbers, which are not their indices."""


@pytest.mark.parametrize(
    ("names", "labels", "classes"),
    [
        ("0 2", LABELS, [0, 2]),
        ("0 5", ("a", "b", "c", "d", "e", "5"), [0, 5]),
        ("1 2 3", NUMBERED, [0, 1, 2]),
        ("0 1 2", ("0", "1", "2"), [0, 1, 2]),
        ("n01440764 n02123045", tuple(f"LABEL_{number}" for number in range(1000)), [0, 281]),
        ("n01440764 n02123045", (*wordnet_ids(1000),), [0, 281]),
    ],
)
def test_one_reading_fits_all_labels(names: str, labels: tuple[str, ...], classes: list[int]) -> None:
    assert [each.index for each in match(names.split(), labels).values()] == classes


def test_labels_with_several_readings_are_an_error_and_an_option_decides() -> None:
    from_the_field = [each.label for each in by_table(str(FIELD / "numv.csv"))]
    assert from_the_field == ["0", "1", "2"]  # only an index fits all, but two are names of other classes
    for names in (["1", "2"], from_the_field):
        with pytest.raises(UsageError, match="`1` is class `1` by name, class `2` by index") as caught:
            match(names, NUMBERED)
        assert caught.value.hint == "decide by `label_by=name` or `label_by=index`"
    assert "`0` is none by name, class `1` by index" in str(caught.value)
    assert match(["1", "2"], NUMBERED, "name") == {"1": Match(0, "name"), "2": Match(1, "name")}
    assert match(["0", "1", "2"], NUMBERED, "index") == {str(index): Match(index, "index") for index in range(3)}
    with pytest.raises(UsageError, match="no class for 1 of 3 labels: `0`"):
        match(["0", "1", "2"], NUMBERED, "name")


def test_labels_that_no_one_reading_fits_are_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        match(["tabby", "drake", "7"], LABELS)
    expected = "no one reading fits all 3 labels: by name, no class for `7`; by index, no class for `drake`, `tabby`"
    assert str(caught.value) == expected
    assert "`label_by=name` or `label_by=index`" in str(caught.value.hint)


def test_names_are_equal_in_either_unicode_form() -> None:
    for name, label in (("U\u0308bung", "\u00dcbung"), ("\u00dcbung", "U\u0308bung"), ("u\u0308bung", "\u00dcbung, x")):
        assert match([name], ("a", label))[name].index == 1
    with pytest.raises(UsageError, match="classes 0, 1 all have that name"):
        match(["\u00dcbung"], ("\u00dcbung", "U\u0308bung"))


@pytest.mark.parametrize(
    ("outputs", "index", "name"),
    [
        (1_000, 0, "n01440764"),
        (1_000, 281, "n02123045"),
        (1_000, 999, "n15075141"),
        pytest.param(21_843, 9_205, "n03931044", marks=pytest.mark.slow),
        (21_843, 9_206, "n03931765"),
        pytest.param(21_841, 9_205, "n03931765", marks=pytest.mark.slow),
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
