"""Devices of this machine that get a worker each."""


def devices_of(text: str) -> list[str]:
    """The devices that `devices=` names; for `all` every GPU, or without one the device that this machine has."""
    if text != "all":
        return text.split(",")
    import torch

    from beitcli.model.runtime import choose_device

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [f"cuda:{number}" for number in range(count)] or [choose_device("auto")]
