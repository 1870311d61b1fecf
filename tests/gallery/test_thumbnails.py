"""Thumbnails: upright, small whatever the image, by the ordinary decoder; and kept from one page to the next."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beitcli.gallery.items import Gallery, Item, sample
from beitcli.gallery.page import page
from beitcli.gallery.page_data import page_data
from beitcli.gallery.thumbnail_files import SUFFIX, ThumbnailFiles, key_of
from beitcli.gallery.thumbnails import MOST_BYTES, SIDE, Thumbnail, ThumbnailEncoder, thumbnails
from beitcli.inputs.decode import Decoding
from beitcli.inputs.fetch import FetchLimits
from beitcli.records import Failure, Prediction, Score, Source
from tests.gallery.pages import failed, photographs

DATA = b"RIFF not really an image"


def made(*paths: Path, decoding: Decoding | None = None) -> list[Thumbnail | Failure]:
    sources = (Source(str(path)) for path in paths)
    return list(thumbnails(sources, decoding or Decoding(), FetchLimits(), workers=0))


def test_a_thumbnail_is_upright_and_small(tmp_path: Path) -> None:
    image = Image.new("RGB", (900, 300), "blue")
    image.paste("red", (0, 0, 300, 300))
    exif = image.getexif()
    exif[0x0112] = 6  # turned to the right by whoever shows it
    image.save(tmp_path / "turned.jpg", exif=exif)
    [thumbnail] = made(tmp_path / "turned.jpg")
    assert isinstance(thumbnail, Thumbnail)
    with Image.open(io.BytesIO(thumbnail.data)) as small:
        assert (small.format, max(small.size)) == ("WEBP", SIDE)
        assert small.width * 3 == pytest.approx(small.height, abs=3)
        red, green, blue = small.convert("RGB").getpixel((small.width // 2, 20))  # type: ignore[misc]
    assert red > 150 > max(green, blue)


def test_even_noise_is_within_the_limit_and_a_small_image_is_not_enlarged() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8))
    packed = ThumbnailEncoder()(noise)
    assert packed.shape == ThumbnailEncoder().shape
    assert 0 < int.from_bytes(packed[:4].tobytes(), "big") <= MOST_BYTES
    dot = ThumbnailEncoder()(Image.new("RGB", (3, 2), "red"))
    length = int.from_bytes(dot[:4].tobytes(), "big")
    with Image.open(io.BytesIO(dot[4 : 4 + length].tobytes())) as image:
        assert image.size == (3, 2)


def test_failures_and_limits_are_those_of_a_run(tmp_path: Path) -> None:
    [path] = photographs(tmp_path, 1)
    (tmp_path / "half.jpg").write_bytes(path.read_bytes()[:600])
    results = made(path, tmp_path / "half.jpg", tmp_path / "gone.jpg", path)
    codes = [each.code if isinstance(each, Failure) else "ok" for each in results]
    assert codes == ["ok", "truncated", "not_found", "ok"]
    [large] = made(path, decoding=Decoding(max_pixels=100))
    assert isinstance(large, Failure)
    assert large.code == "too_large"


def test_a_key_changes_with_the_file(tmp_path: Path) -> None:
    [path] = photographs(tmp_path, 1)
    source = Source(str(path))
    key = key_of(source)
    assert key == key_of(Source(os.path.relpath(path)))
    os.utime(path, ns=(1, 1))
    assert key_of(source) not in (None, key)
    path.unlink()
    assert key_of(source) is None
    assert key_of(Source("https://example.org/a.jpg", "url")) != key_of(Source("https://example.org/b.jpg", "url"))


def written(out: Path, files: ThumbnailFiles, names: list[str]) -> None:
    items = [Item(Prediction(Source(name), (Score("cat", 0, 0.5),)), Source(name)) for name in names]
    data = page_data(Gallery("page", items), names, {}, str(out), files.folder)
    out.write_text(page(data, files.embedded(names), "page"))


def test_thumbnails_move_from_the_page_to_the_folder_and_back(tmp_path: Path) -> None:
    out, key, digest = tmp_path / "page.html", "0123456789abcdef", b"\xaa" * 32
    files = ThumbnailFiles(str(out), is_embedded=True)
    name = files.add(key, digest, DATA)
    written(out, files, [name])
    assert not (tmp_path / "page_files").exists()

    files = ThumbnailFiles(str(out), is_embedded=False)
    assert files.known(key) == name
    [path] = (tmp_path / "page_files").rglob(f"*{SUFFIX}")
    assert path.read_bytes() == DATA
    written(out, files, [name])

    (tmp_path / "page_files" / "mine.txt").touch()
    path.with_name(f"{path.name}.part").touch()  # of a run that was killed
    files = ThumbnailFiles(str(out), is_embedded=True)
    assert files.embedded([files.known(key) or ""]) == {name: DATA}
    written(out, files, [name])
    files.keep_only([name])
    assert [path.name for path in (tmp_path / "page_files").rglob("*")] == ["mine.txt"]
    assert ThumbnailFiles(str(out), is_embedded=True).known(key) == name


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"x": 3}', '{"0123456789abcdef-0123456789abcdef": 3}'])
def test_a_page_that_somebody_has_edited_has_no_thumbnails(tmp_path: Path, text: str) -> None:
    out = tmp_path / "page.html"
    out.write_text(f'<script type="application/json" id="thumbnails">{text}</script>')
    assert ThumbnailFiles(str(out), is_embedded=True).known("0123456789abcdef") is None


def test_an_empty_file_is_no_thumbnail(tmp_path: Path) -> None:
    """After a crash of the machine, a file may be there without its bytes."""
    files = ThumbnailFiles(str(tmp_path / "page.html"), is_embedded=False)
    name = files.add("0123456789abcdef", b"\xaa" * 32, DATA)
    (tmp_path / "page_files" / name[:2] / f"{name}{SUFFIX}").write_bytes(b"")
    assert ThumbnailFiles(str(tmp_path / "page.html"), is_embedded=False).known("0123456789abcdef") is None


def test_a_sample_has_the_least_and_the_most_certain_of_each_label() -> None:
    items = [
        Item(Prediction(Source(f"{number}"), (Score("cat" if number % 2 else "dog", 0, number / 20),)), Source(""))
        for number in range(20)
    ]
    items += [Item(failed(name), Source("")) for name in ("x", "y", "z")]
    chosen = [item.record.source.name for item in sample(items, 2)]
    assert chosen == ["0", "1", "2", "3", "16", "17", "18", "19", "x", "y"]
    assert len(sample(items, 100)) == 23
