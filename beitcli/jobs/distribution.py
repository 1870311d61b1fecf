"""Workers of a run: none of its own for one device, processes for several, or those of a Ray cluster."""

from dataclasses import replace

from beitcli.jobs.requests import Compute
from beitcli.workers.devices import devices_of
from beitcli.workers.run import Engine


def engine_of(compute: Compute) -> Engine | None:
    """The engine of the run's workers; None where this process is the only one.

    Raises UsageError where Ray is not installed, BeitError where its cluster cannot be reached.
    """
    if compute.devices is None:
        return None
    from beitcli.workers.processes import Processes

    devices = devices_of(compute.devices)
    return Processes(devices) if len(devices) > 1 else None


def on_one_device(compute: Compute) -> Compute:
    """The same on the only device that `devices=` names, or as it is."""
    if compute.devices is None:
        return compute
    [device] = devices_of(compute.devices)
    return replace(compute, device=device, devices=None)


def worker_count(compute: Compute) -> dict[str, int]:
    """The number of workers, by its name in a preview; nothing for a run without."""
    if compute.devices is None:
        return {}
    return {"workers": len(devices_of(compute.devices))}


def device_name(compute: Compute, used: str | None) -> str:
    """The device as a report names it: the kind of several; `used` is the first that this run has used, if any."""
    from beitcli.model.runtime import choose_device

    if compute.devices is None:
        return choose_device(compute.device)
    return (used or devices_of(compute.devices)[0]).partition(":")[0]
