"""Workers of a run: none of its own for one device, processes for several, or those of a Ray cluster."""

from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec

from beitcli.errors import UsageError
from beitcli.jobs.requests import Compute
from beitcli.outputs.destination import reserved_standard_output
from beitcli.workers.devices import devices_of
from beitcli.workers.run import Engine


def engine_of(compute: Compute) -> Engine | None:
    """The engine of the run's workers; None where this process is the only one.

    Raises UsageError where Ray is not installed, BeitError where its cluster cannot be reached.
    """
    if compute.engine == "ray":
        return _ray(compute)
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
    if not compute.has_workers:
        return {}
    if compute.devices is not None:
        return {"workers": len(devices_of(compute.devices))}
    with reserved_standard_output(), closing(_ray(compute)) as engine:
        return {"workers": len(engine.places())}


def device_name(compute: Compute, used: str | None) -> str:
    """The device as a report names it: the kind of several; `used` is the first that this run has used, if any."""
    from beitcli.model.runtime import choose_device

    if not compute.has_workers:
        return choose_device(compute.device)
    return (used or devices_of(compute.devices or "all")[0]).partition(":")[0]


def _ray(compute: Compute) -> Engine:
    if find_spec("ray") is None:
        raise UsageError("`engine=ray` needs the package ray", "pip install 'beitcli[ray]'")
    from beitcli.workers.ray_actors import RayWorkers

    return RayWorkers(compute.address, compute.device)
