"""Generated pictures of coloured shapes: classes that anything can tell apart."""

import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

SIDE = 40


def draw(path: Path, colour: str, chance: random.Random) -> None:
    """A disc or a box of this colour somewhere on grey."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(chance.randrange(100, 160) for _ in range(3)))
    x, y = chance.randrange(SIDE - 16), chance.randrange(SIDE - 16)
    pen = ImageDraw.Draw(image)
    (pen.ellipse if chance.random() < 0.5 else pen.rectangle)([x, y, x + 14, y + 14], fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def draw_classes(folder: Path, count: int, colours: Sequence[str] = ("blue", "red"), seed: int = 0) -> Path:
    """The folder, now with so many pictures of each colour in a folder of its name."""
    chance = random.Random(seed)
    for colour in colours:
        for number in range(count):
            draw(folder / colour / f"{number:03}.png", colour, chance)
    return folder
