"""Settings of a pipeline <-> those of them that all workers of a run share."""

from dataclasses import replace
from typing import TYPE_CHECKING

from beitcli.workers.messages import Chosen

if TYPE_CHECKING:
    from beitcli.pipeline import Settings


def chosen_of(settings: "Settings") -> Chosen:
    """The shared part of the settings."""
    runtime = settings.runtime
    return Chosen(runtime.device, runtime.dtype, runtime.compiled, settings.batch_size)


def with_chosen(settings: "Settings", chosen: Chosen) -> "Settings":
    """The settings with those that the run has chosen; the device stays that of the worker."""
    runtime = replace(settings.runtime, dtype=chosen.dtype, compiled=chosen.compiled)
    return replace(settings, runtime=runtime, batch_size=chosen.batch_size)
