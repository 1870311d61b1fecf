"""An image fails for a crash that it causes, not for one from outside."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitcli.inputs.decode import Decoding
from beitcli.inputs.quarantine import decode_alone
from beitcli.records import Failure, Source


@pytest.mark.skipif(not os.path.exists("/proc/self/oom_score_adj"), reason="needs Linux")
@pytest.mark.parametrize("more", [0, 100])
def test_a_decoder_never_lowers_its_oom_score(more: int) -> None:
    """Lowering it is what the kernel may refuse."""
    program = (
        "import sys; from pathlib import Path; from beitcli.inputs.worker import init_worker\n"
        "score = Path('/proc/self/oom_score_adj'); before = int(score.read_text())\n"
        f"before = min(1000, max(before, 500) + {more}) if {more} else before\n"
        "score.write_text(str(before)); init_worker()\n"
        "sys.exit(int(score.read_text()) != max(before, 500))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@dataclass(frozen=True)
class Doomed:
    """Ends its process by a signal at red images; with a `marker`, only if that file is not there yet."""

    death: signal.Signals
    marker: str | None = None
    shape = (1, 1, 3)
    dtype = "uint8"

    def __call__(self, image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image)[:1, :1]
        if tuple(pixels[0, 0]) == (255, 0, 0) and not (self.marker and os.path.exists(self.marker)):
            if self.marker:
                Path(self.marker).touch()
            os.kill(os.getpid(), self.death)
        return pixels


@pytest.fixture
def items(tmp_path: Path) -> list[Source]:
    for name, colour in (("a", "blue"), ("b", "red"), ("c", "lime")):
        Image.new("RGB", (2, 2), colour).save(tmp_path / f"{name}.png")
    return [Source(str(tmp_path / f"{name}.png")) for name in "abc"]


@pytest.mark.parametrize(
    ("death", "code"),
    [
        (signal.SIGSEGV, "decoder_crashed"),
        (signal.SIGABRT, "decoder_crashed"),
        (signal.SIGKILL, "out_of_memory"),
        (signal.SIGALRM, "timeout"),
    ],
)
def test_the_signal_determines_the_code(items: list[Source], death: signal.Signals, code: str) -> None:
    first, second, third = decode_alone(items, Doomed(death), Decoding(seconds=20))
    assert isinstance(second, Failure)
    assert (second.source, second.code) == (items[1], code)
    assert not isinstance(first, Failure) and not isinstance(third, Failure)


def test_a_death_from_outside_is_not_the_images_fault(items: list[Source], tmp_path: Path) -> None:
    preprocess = Doomed(signal.SIGKILL, str(tmp_path / "died once"))
    results = list(decode_alone(items, preprocess, Decoding(seconds=20)))
    assert not any(isinstance(result, Failure) for result in results)
