"""Flags in messages: where the library says `image_size=100`, the command line says --image-size 100."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_PARAMETER = re.compile(r"`([a-z][a-z0-9_]*)=([^`]*)`")


@dataclass(frozen=True, slots=True)
class Flag:
    """The flag that gives a parameter a value; a switch takes none, and `off` is the one that turns it off."""

    name: str
    is_switch: bool = False
    off: str | None = None

    def given(self, value: str) -> str | None:
        """The flag with this value, or None where no flag has it. Without a value: its name."""
        if self.is_switch:
            return {"": self.name, "True": self.name, "False": self.off}.get(value)
        text = f"{self.name} {value}".rstrip()
        return f"`{text}`" if value == "-" else text  # a single dash is easily overlooked


def in_flags(message: str, flag_of: Callable[[str], Flag | None]) -> str:
    """A message with the flag of each parameter that has one, in place of its name in backticks."""

    def spelled(match: re.Match[str]) -> str:
        flag = flag_of(match[1])
        return (flag and flag.given(match[2])) or match[0]

    return _PARAMETER.sub(spelled, message)


def flags_of(app: Any, name: str | None) -> dict[str, Flag]:
    """The flag of every parameter of every command of the app; one that several have is that of the named command."""
    commands: Any = getattr(app, "commands", {})
    preferred = commands.get(name)
    return {name: flag for command in (*commands.values(), preferred) if command for name, flag in _flags(command)}


def _flags(command: Any) -> Iterator[tuple[str, Flag]]:
    for parameter in command.params:
        long = [option for option in parameter.opts if option.startswith("--")]
        if long:
            off = next(iter(parameter.secondary_opts), None)
            yield parameter.name, Flag(long[0], parameter.is_flag, off)
