"""Generated images of coloured shapes: classes that are easy to separate."""

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 40


def draw(path: Path, colour: str, rng: random.Random) -> None:
    """A disc or a box of this colour somewhere on grey."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(rng.randrange(100, 160) for _ in range(3)))
    x, y = rng.randrange(SIDE - 16), rng.randrange(SIDE - 16)
    canvas = ImageDraw.Draw(image)
    (canvas.ellipse if rng.random() < 0.5 else canvas.rectangle)([x, y, x + 14, y + 14], fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def draw_classes(folder: Path, count: int, colours: Sequence[str] = ("blue", "red"), seed: int = 0) -> Path:
    """The folder, with `count` images of each colour in a subfolder of its name."""
    rng = random.Random(seed)
    for colour in colours:
        for number in range(count):
            draw(folder / colour / f"{number:03}.png", colour, rng)
    return folder
