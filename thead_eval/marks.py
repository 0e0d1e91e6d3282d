"""The marks that a file carries about how it was made: theval's own, IPTC's in XMP, Content Credentials (C2PA).

A mark is a statement of whoever wrote it. Anyone can add one or take it away, and only a valid signature shows that a
file is still what its signer made; so no mark decides a verdict.
"""

import mmap
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from thead_eval.credentials import read_store
from thead_eval.errors import ConfigError, MediaError
from thead_eval.manifest import read_manifest
from thead_eval.marking import describe_synthetic
from thead_eval.media import read_metadata

Kind = Literal["theval", "manifest", "tag", "xmp", "c2pa"]

OWN = describe_synthetic("")  # how the words begin that theval writes
LISTED = 64 * 2**10  # bytes of an image's text that are looked at
PACKET = 2**20  # bytes of an XMP packet; longer ones are not read
PACKETS = 16

# IPTC's NewsCodes for the digital source type: those that say an algorithm made the picture, and those that say it
# did not. Any other says neither.
MADE = frozenset(
    "trainedAlgorithmicMedia compositeWithTrainedAlgorithmicMedia compositeSynthetic algorithmicMedia "
    "algorithmicallyEnhanced dataDrivenMedia virtualRecording".split()
)
TAKEN = frozenset("digitalCapture computationalCapture negativeFilm positiveFilm print".split())
SOURCE_TYPE = "digitalsourcetype"  # the end of the name of an XMP property, or a tag, in lower case


@dataclass(frozen=True)
class Mark:
    """What a file says about itself."""

    kind: Kind
    text: str
    synthetic: bool | None  # whether it says that an algorithm made the file; None: neither that nor the contrary


def read_marks(path: Path, sha256: str = "") -> list[Mark]:
    """Every mark of a video or image file, in the order of `Kind`; none where it has none, or cannot be read.

    Args:
        path: The file.
        sha256: Its own, to be looked up in the manifest.csv of its folder; '' does not look.
    """
    found = [*_from_tags(path), *_from_manifest(path, sha256), *_from_xmp(path), *_from_credentials(path)]
    kinds: tuple[Kind, ...] = ("theval", "manifest", "tag", "xmp", "c2pa")
    return sorted(dict.fromkeys(found), key=lambda mark: kinds.index(mark.kind))


def _from_tags(path: Path) -> Iterator[Mark]:
    """The container's tags, or the text in an image."""
    for name, value in _tags(path):
        if OWN in value:
            yield Mark("theval", value[value.index(OWN) :].split(" http")[0].strip(), True)
        if name.replace(" ", "").endswith(SOURCE_TYPE):
            yield _source_type("tag", value)


def _tags(path: Path) -> list[tuple[str, str]]:
    """By lower-case name."""
    try:
        with Image.open(path) as image:
            texts = {str(name).lower(): _words(value) for name, value in image.info.items()}
            return [(name, text[:LISTED]) for name, text in texts.items() if "xmp" not in name]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass  # it is no image; perhaps a video
    try:
        return list(read_metadata(path).items())
    except MediaError:
        return []


def _words(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _from_manifest(path: Path, sha256: str) -> Iterator[Mark]:
    """The row of the table in the file's folder, or above it, that names these very bytes."""
    for folder in list(path.resolve().parents)[: 3 if sha256 else 0]:
        try:
            rows = read_manifest(folder)
        except ConfigError:
            continue  # a table of something else
        for row in rows:
            if row.sha256 == sha256 and row.generator:
                yield Mark("manifest", f"Listed in '{folder.name}/manifest.csv' as made by {row.generator}", True)
                return


def _from_xmp(path: Path) -> Iterator[Mark]:
    """IPTC's digital source type, wherever in the file an XMP packet stands, as XMP's standard provides."""
    for packet in _packets(path):
        try:
            tree = ElementTree.fromstring(packet)
        except ElementTree.ParseError:
            continue
        for element in tree.iter():
            for name, value in [*element.attrib.items(), (element.tag, _value(element))]:
                if name.lower().endswith("}" + SOURCE_TYPE) and value:
                    yield _source_type("xmp", value)


def _value(element: ElementTree.Element) -> str:
    """Of a property: its text, or what it refers to."""
    resource = next((value for name, value in element.attrib.items() if name.endswith("}resource")), "")
    return (element.text or "").strip() or resource


def _packets(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = 0
            for _ in range(PACKETS):
                begin = content.find(b"<x:xmpmeta", end)
                if begin < 0:
                    return
                end = content.find(b"</x:xmpmeta>", begin, begin + PACKET)
                if end < 0:
                    end = begin + 1
                    continue
                packet = content[begin : end + len(b"</x:xmpmeta>")]
                if b"<!" not in packet:  # a document type could define entities that grow without bound
                    yield packet
    except (OSError, ValueError):  # not to be read, or empty
        return


def _source_type(kind: Kind, value: str) -> Mark:
    name = value.strip().rstrip("/").rpartition("/")[2]
    synthetic = True if name in MADE else False if name in TAKEN else None
    return Mark(kind, f"Digital source type: {name[:80]}", synthetic)


def _from_credentials(path: Path) -> Iterator[Mark]:
    """What the active C2PA manifest says was done, who signed it, and whether that holds."""
    try:
        store = read_store(path)
    except ConfigError:
        if _holds_jumbf(path):
            yield Mark("c2pa", "Content Credentials, not read: run 'pip install \"theval[credentials]\"'", None)
        return
    except MediaError as error:
        if _holds_jumbf(path):
            yield Mark("c2pa", f"Content Credentials, damaged: {error}", None)
        return
    if store is not None:
        yield _credentials(store)


def _credentials(store: dict[str, Any]) -> Mark:  # Any: JSON
    manifest = store["manifests"].get(store.get("active_manifest"), {})
    tools = " ".join(str(tool.get("name", "")) for tool in manifest.get("claim_generator_info", []))
    issuer = manifest.get("signature_info", {}).get("issuer") or "an unnamed issuer"
    failures = [str(status.get("code")) for status in store.get("validation_status", [])]
    state = {
        "Trusted": "its signature is valid and trusted",
        "Valid": "its signature is valid, of a signer whom no list of trust names",
    }.get(store.get("validation_state", ""), f"INVALID ({', '.join(failures[-2:]) or 'no reason is given'})")
    names = [name for name in _source_types(manifest) if name]
    says = f"digital source type: {', '.join(dict.fromkeys(names))}" if names else "no digital source type"
    text = f"Content Credentials of {tools or 'an unnamed tool'}, signed by {issuer}: {says}; {state}"
    made = True if MADE & set(names) else False if names and set(names) <= TAKEN else None
    return Mark("c2pa", text, made)


def _source_types(manifest: dict[str, Any]) -> Iterator[str]:  # Any: JSON
    for assertion in manifest.get("assertions", []):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in assertion.get("data", {}).get("actions", []):
                yield str(action.get("digitalSourceType", "")).rstrip("/").rpartition("/")[2]


def _holds_jumbf(path: Path) -> bool:
    """Whether the bytes of C2PA's container are in the file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b"jumb") >= 0 and content.find(b"c2pa") >= 0
    except (OSError, ValueError):
        return False
