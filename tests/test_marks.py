"""What a file says about how it was made."""

import io
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.test_generate import chain  # noqa: F401  # a fixture
from thead_eval.credentials import read_signing_key, sign
from thead_eval.manifest import ManifestRow, add_rows
from thead_eval.marks import Mark, read_marks
from thead_eval.media import write_clip, write_images
from thead_eval.types import Clip
from thead_eval.weights import sha256_of

FRAMES = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
OURS = Mark("theval", "Synthetic media made by theval generator warp", True)
XMP = Mark("xmp", "Digital source type: trainedAlgorithmicMedia", True)
TAG = Mark("tag", "Digital source type: trainedAlgorithmicMedia", True)


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("a.mp4", [OURS, TAG, XMP]),
        ("a.mov", [OURS, TAG, XMP]),
        ("a.mkv", [OURS, TAG]),
        ("a.png", [OURS, XMP]),
        ("a.jpg", [OURS, XMP]),
        ("a.gif", [OURS]),
    ],
)
def test_what_theval_writes_is_read_again(tmp_path: Path, name: str, marks: list[Mark]) -> None:
    for synthetic, expected in (("warp", marks), (None, [])):
        path = tmp_path / f"{synthetic}-{name}"
        if path.suffix in (".mp4", ".mov", ".mkv"):
            write_clip(path, Clip("a", FRAMES, 25.0), synthetic=synthetic)
        else:
            write_images(path, FRAMES if path.suffix == ".gif" else FRAMES[:1], synthetic=synthetic)
        assert read_marks(path) == expected


def write_xmp(path: Path, inside: str, about: str = "") -> Path:
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:e="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" {about}>{inside}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    )
    Image.new("RGB", (8, 8)).save(path, "JPEG", xmp=packet.encode())
    return path


@pytest.mark.parametrize(("term", "synthetic"), [("digitalCapture", False), ("algorithmicMedia", True), ("new", None)])
def test_each_way_in_which_xmp_states_a_property(tmp_path: Path, term: str, synthetic: bool | None) -> None:
    uri = f"http://cv.iptc.org/newscodes/digitalsourcetype/{term}"
    element = f"<e:DigitalSourceType>{uri}</e:DigitalSourceType>"
    resource = f'<e:DigitalSourceType rdf:resource="{uri}/"/>'
    files = [
        write_xmp(tmp_path / "attribute.jpg", "", f'e:DigitalSourceType="{uri}"'),
        write_xmp(tmp_path / "element.jpg", element),
        write_xmp(tmp_path / "resource.jpg", resource),
    ]
    assert [read_marks(file) for file in files] == [[Mark("xmp", f"Digital source type: {term}", synthetic)]] * 3


def test_a_strangers_file_cannot_do_harm(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.jpg"
    bomb.write_bytes(b'<x:xmpmeta><!DOCTYPE a [<!ENTITY b "b">]><DigitalSourceType>&b;</DigitalSourceType></x:xmpmeta>')
    open_ended, broken, empty = tmp_path / "open.bin", tmp_path / "broken.bin", tmp_path / "empty.mp4"
    open_ended.write_bytes(b"<x:xmpmeta" * 100)
    broken.write_bytes(b"<x:xmpmeta><a></x:xmpmeta>")
    empty.write_bytes(b"")
    for file in (bomb, open_ended, broken, empty, tmp_path / "absent.png"):
        assert read_marks(file) == []


def test_bytes_that_a_manifest_lists(tmp_path: Path) -> None:
    (tmp_path / "warp" / "8").mkdir(parents=True)
    fake, real = tmp_path / "warp" / "8" / "anna.mkv", tmp_path / "anna.mkv"
    write_clip(fake, Clip("anna", FRAMES, 25.0), lossless=True)
    write_clip(real, Clip("anna", FRAMES + 9, 25.0), lossless=True)
    rows = [ManifestRow("warp/8/anna.mkv", "anna", "warp", sha256=sha256_of(fake), generator="warp")]
    add_rows(tmp_path, [*rows, ManifestRow("anna.mkv", "anna", "real", sha256=sha256_of(real))])
    assert read_marks(fake, sha256_of(fake)) == [
        Mark("manifest", f"Listed in '{tmp_path.name}/manifest.csv' as made by warp", True)
    ]
    assert read_marks(fake) == read_marks(real, sha256_of(real)) == []
    (tmp_path / "manifest.csv").write_text("something,else\n")
    assert read_marks(fake, sha256_of(fake)) == []


def test_content_credentials_with_what_checking_them_gave(chain: tuple[Path, Path], tmp_path: Path) -> None:  # noqa: F811
    signed = tmp_path / "signed.png"
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    signed.write_bytes(buffer.getvalue())
    sign(signed, read_signing_key(*chain), "warp")
    (mark,) = read_marks(signed)
    assert mark == Mark(
        "c2pa",
        "Content Credentials of theval, signed by Tests: digital source type: trainedAlgorithmicMedia; "
        "its signature is valid, of a signer whom no list of trust names",
        True,
    )
    content = bytearray(signed.read_bytes())
    content[content.find(b"IDAT") + 6] ^= 1
    signed.write_bytes(content)
    (mark,) = read_marks(signed)
    assert mark.text.endswith("INVALID (signingCredential.untrusted, assertion.dataHash.mismatch)")
