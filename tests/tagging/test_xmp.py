"""Keywords in XMP: ours replaced and removed, those of others and all else kept; read back by exiftool."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from beitcli.tagging.xmp import XmpError, keyword_of, retagged
from tests.conftest import SAMPLES

BY_OTHERS = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
    xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:darktable="http://darktable.sf.net/"
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:lr="http://ns.adobe.com/lightroom/1.0/"
    xmlns:digiKam="http://www.digikam.org/ns/1.0/" xmlns:my="http://example.org/my/"
   exif:DateTimeOriginal="2021:05:06 07:08:09.123" exif:GPSLatitude="48,8.35N" exif:ExposureTime="1/250"
   xmp:Rating="-1" xmp:CreateDate="2021-05-06T07:08:09+02:00" tiff:Orientation="6" photoshop:City="Köln"
   crs:Exposure2012="+0.50" my:thing="kept" darktable:xmp_version="5">
   <dc:title><rdf:Alt>
    <rdf:li xml:lang="x-default">A title</rdf:li><rdf:li xml:lang="de">Ein Titel</rdf:li>
   </rdf:Alt></dc:title>
   <dc:creator><rdf:Seq><rdf:li>Me</rdf:li></rdf:Seq></dc:creator>
   <dc:subject><rdf:Bag><rdf:li>holiday</rdf:li><rdf:li>sea, sand</rdf:li></rdf:Bag></dc:subject>
   <lr:hierarchicalSubject><rdf:Bag><rdf:li>places|Köln</rdf:li></rdf:Bag></lr:hierarchicalSubject>
   <digiKam:TagsList><rdf:Seq><rdf:li>places/Köln</rdf:li></rdf:Seq></digiKam:TagsList>
   <darktable:history><rdf:Seq>
     <rdf:li darktable:num="0" darktable:operation="rawprepare" darktable:params="gz09" darktable:multi_name=""/>
     <rdf:li darktable:num="1" darktable:operation="flip" darktable:params="ff" darktable:multi_name=" x"/>
   </rdf:Seq></darktable:history>
   <my:list><rdf:Bag><rdf:li>1</rdf:li><rdf:li>2</rdf:li></rdf:Bag></my:list>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>""".encode()


@pytest.fixture
def exiftool() -> None:
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is missing: Debian's libimage-exiftool-perl has it")


def read_back(path: Path) -> dict[str, Any]:
    """The XMP of a file, and its IPTC, as exiftool reads them."""
    command = ["exiftool", "-json", "-struct", "-G1", "-a", "-XMP:all", "-IPTC:all", str(path)]
    process = subprocess.run(command, capture_output=True, check=True)
    [found] = json.loads(process.stdout)
    return {name: value for name, value in found.items() if name.startswith(("XMP-", "IPTC")) and "Toolkit" not in name}


def as_file(folder: Path, data: bytes | None, suffix: str = "xmp") -> Path:
    assert data
    path = folder / f"file.{suffix}"
    path.write_bytes(data)
    return path


@pytest.mark.usefixtures("exiftool")
def test_a_new_sidecar_has_the_keyword_flat_and_hierarchical(tmp_path: Path) -> None:
    data = retagged(None, ("tabby, tabby cat",))
    assert read_back(as_file(tmp_path, data)) == {
        "XMP-dc:Subject": ["tabby, tabby cat"],
        "XMP-lr:HierarchicalSubject": ["beit|tabby, tabby cat"],
        "XMP-beit:Keywords": ["tabby, tabby cat"],
    }
    assert data and data.count(b"<rdf:Bag>") == 3
    assert retagged(data, ("tabby, tabby cat",)) is None
    assert retagged(data, ()) == b""


@pytest.mark.usefixtures("exiftool")
@pytest.mark.parametrize("label", ["ü <b>&\"'", "a|b", "a;b/c\\d", "  two  spaces ", "x" * 5000, "猫"])
def test_any_label_comes_back(tmp_path: Path, label: str) -> None:
    keyword = keyword_of(label)
    data = retagged(None, (keyword,))
    found = read_back(as_file(tmp_path, data))
    assert found["XMP-dc:Subject"] == [" ".join(label.split())]
    assert found["XMP-lr:HierarchicalSubject"] == [f"beit|{keyword.replace('|', '/')}"]
    assert retagged(data, (keyword,)) is None


def test_what_xml_cannot_hold_is_no_part_of_a_keyword() -> None:
    assert keyword_of("a\0b\x1b[1m\ud800c\n") == "a b [1m?c"
    assert keyword_of("\t") == ""


@pytest.mark.usefixtures("exiftool")
def test_what_others_have_written_is_kept(tmp_path: Path) -> None:
    before = read_back(as_file(tmp_path, BY_OTHERS))
    tagged = retagged(BY_OTHERS, ("cat",))
    changed = {
        "XMP-dc:Subject": ["holiday", "sea, sand", "cat"],
        "XMP-lr:HierarchicalSubject": ["places|Köln", "beit|cat"],
        "XMP-beit:Keywords": ["cat"],
    }
    assert read_back(as_file(tmp_path, tagged)) == before | changed
    other = retagged(tagged, ("dog",))
    assert read_back(as_file(tmp_path, other))["XMP-dc:Subject"] == ["holiday", "sea, sand", "dog"]
    assert read_back(as_file(tmp_path, retagged(other, ()))) == before
    assert retagged(BY_OTHERS, ()) is None


@pytest.mark.usefixtures("exiftool")
def test_a_keyword_that_was_there_stays_the_users(tmp_path: Path) -> None:
    tagged = retagged(BY_OTHERS, ("holiday",))
    assert read_back(as_file(tmp_path, tagged))["XMP-dc:Subject"] == ["holiday", "sea, sand"]
    assert retagged(tagged, ("holiday",)) is None
    for keywords in ((), ("cat",)):
        assert "holiday" in read_back(as_file(tmp_path, retagged(tagged, keywords)))["XMP-dc:Subject"]


@pytest.mark.parametrize(
    "data",
    [
        b"no XMP",
        BY_OTHERS[:-300],
        b'<?xml version="1.0"?><other/>',
        BY_OTHERS.decode().encode("utf-16"),
    ],
)
def test_a_file_that_is_no_xmp_is_an_error(data: bytes) -> None:
    with pytest.raises(XmpError):
        retagged(data, ("cat",))


@pytest.mark.usefixtures("exiftool")
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_an_image_keeps_its_pixels_and_other_metadata(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"file.{suffix}"
    with Image.open(SAMPLES / "cat.jpg") as image:
        image.save(path)
    if suffix != "webp":
        subprocess.run(["exiftool", "-q", "-overwrite_original", "-XMP-dc:Title=A title", path], check=True)
    if suffix == "jpg":
        subprocess.run(["exiftool", "-q", "-overwrite_original", "-IPTC:Keywords=holiday", path], check=True)
    before, data = read_back(path), path.read_bytes()
    tagged = retagged(data, ("cat",))
    assert tagged
    assert retagged(tagged, ("cat",)) is None
    found = read_back(as_file(tmp_path, tagged, suffix))
    assert found.pop("XMP-dc:Subject") == ["cat"]
    assert found.pop("XMP-lr:HierarchicalSubject") == ["beit|cat"]
    assert found.pop("XMP-beit:Keywords") == ["cat"]
    assert found == before
    with Image.open(io.BytesIO(data)) as one, Image.open(io.BytesIO(tagged)) as other:
        assert one.tobytes() == other.tobytes()
    assert read_back(as_file(tmp_path, retagged(tagged, ()), suffix)) == before
