"""Values that a field of a request may have, declared in its type: numbers of a range, or choices."""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from beitcli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Range:
    """Least and greatest number allowed, both included: `Annotated[int, Range(1, 4096)]`."""

    least: float
    most: float | None = None

    def __contains__(self, number: float) -> bool:
        return self.least <= number and (self.most is None or number <= self.most)

    def __str__(self) -> str:
        return f"of {self.least} or more" if self.most is None else f"from {self.least} to {self.most}"


def ranges_of(record: type) -> dict[str, Range]:
    """The range of each field that has one."""
    hints = get_type_hints(record, include_extras=True)
    metadata = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: each for name, found in metadata.items() for each in found if isinstance(each, Range)}


def check_values(record: Any) -> None:
    """Raise UsageError for a number outside its field's range, or a value that is none of its choices."""
    ranges = ranges_of(type(record))
    for name, hint in get_type_hints(type(record)).items():
        value, types = getattr(record, name), (hint, *get_args(hint))
        if value is None and type(None) in types:
            continue
        choices = [choice for each in types if get_origin(each) is Literal for choice in get_args(each)]
        others = tuple(each for each in types if isinstance(each, type))
        if choices and value not in choices and not isinstance(value, others):
            raise UsageError(f"`{name}={value}`: not one of {', '.join(choices)}")
        if name in ranges:
            number, noun = (Integral, "an integer") if int in types else (Real, "a number")
            if not isinstance(value, number) or float(value) not in ranges[name]:
                raise UsageError(f"`{name}={value}`: not {noun} {ranges[name]}")
