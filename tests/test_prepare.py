"""theval prepare on good and bad videos: what comes out, and what survives a kill, a full disk, another command."""

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from tests.test_faces import CPU, detector, portraits
from tests.test_tracking import heads, paste
from thead_eval.cli.prepare import command
from thead_eval.data import Dataset, open_dataset
from thead_eval.errors import ConfigError, DatasetError, WeightsMissing
from thead_eval.faces import Landmarker, find_landmarks, load_landmarker
from thead_eval.media import write_clip
from thead_eval.prepare import PrepareReport, PrepareSettings, prepare
from thead_eval.sources import Ratios, Source, find_sources
from thead_eval.types import Clip

SETTINGS = PrepareSettings(min_frames=12, detect_every=6)
FRAMES = 16


def film(
    person: int, frames: int = FRAMES, width: int = 256, height: int = 256, x: int = 0, y: int = 0
) -> torch.Tensor:
    """[T, 3, H, W]: a portrait that sways a little, on grey."""
    pictures = []
    for n in range(frames):
        canvas = np.full((height, width, 3), 110, np.uint8)
        paste(canvas, heads()[person], x + round(3 * np.sin(n / 2)), y + n % 2)
        pictures.append(canvas)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def save(path: Path, frames: torch.Tensor, fps: float = 25.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, Clip(path.stem, frames, fps))


def encode(path: Path, pictures: Iterator[NDArray[np.uint8]], codec: str, pixels: str) -> None:
    """A video in a codec or pixel format that `write_clip` does not write."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, av.VideoStream)
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = pixels
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def run(folder: Path, out: Path, settings: PrepareSettings = SETTINGS, workers: int = 1) -> PrepareReport:
    return prepare(folder, out, sources_of(folder), settings, workers=workers)


def sources_of(folder: Path) -> list[Source]:
    return find_sources(folder, "auto", Ratios(0, 0, 1))


def content(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    return load_landmarker("dlib", CPU)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video of every kind."""
    folder = tmp_path_factory.mktemp("videos")
    save(folder / "collins.mp4", film(0))
    save(folder / "hopper.mp4", film(1), fps=29.97)
    save(folder / "wide.mkv", film(1, width=640, height=360, x=300, y=60))
    save(folder / "odd.mp4", film(0, width=321, height=243, x=40))
    save(folder / "shots.mp4", torch.cat([film(0), film(1)]))
    save(folder / "lost.mp4", torch.cat([film(0, frames=7), film(0, x=-200, frames=20)]))
    save(folder / "short.mp4", film(0, frames=8))
    save(folder / "one.mp4", film(0, frames=1))
    save(folder / "blank.mp4", torch.full((FRAMES, 3, 256, 256), 90, dtype=torch.uint8))
    grey = film(0).float().mean(dim=1).byte().numpy()  # [T, H, W]
    encode(folder / "grey.mkv", (np.repeat(picture[..., None], 3, axis=2) for picture in grey), "ffv1", "gray")
    pair = np.concatenate([film(0).numpy(), film(1).numpy()], axis=3)  # side by side
    save(folder / "pair.mp4", torch.from_numpy(pair))
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    whole = (folder / "collins.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def prepared(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "dataset"
    report = run(videos, out, workers=2)
    assert report.outcomes == {"prepared": 7, "unreadable": 3, "no face": 1, "face lost": 1, "too short": 2}
    return out


@pytest.fixture(scope="module")
def dataset(prepared: Path) -> Dataset:
    return open_dataset(prepared)


def test_every_video_has_clips_or_a_reason(videos: Path, prepared: Path, dataset: Dataset) -> None:
    assert dict(zip(dataset.rejected["source"], dataset.rejected["reason"], strict=True)) == {
        "blank.mp4": "no face",
        "cut.mp4": "unreadable",
        "empty.mp4": "unreadable",
        "lost.mp4": "face lost",
        "one.mp4": "too short",
        "short.mp4": "too short",
        "text.mp4": "unreadable",
    }
    assert sorted(dataset.clips["source"].unique()) == sorted(
        ["collins.mp4", "hopper.mp4", "wide.mkv", "odd.mp4", "shots.mp4", "grey.mkv", "pair.mp4"]
    )
    assert not (set(dataset.clips["source"]) & set(dataset.rejected["source"]))
    assert sorted(path.name for path in prepared.iterdir()) == [
        "clips.parquet",
        "dataset.json",
        "frames.parquet",
        "shards",
    ]
    hashed = dict(zip(dataset.clips["source"], dataset.clips["source_sha256"], strict=True))
    assert hashed["wide.mkv"] == hashlib.sha256((videos / "wide.mkv").read_bytes()).hexdigest()


def test_reasons_have_details_without_paths_of_this_machine(videos: Path, dataset: Dataset) -> None:
    details = dict(zip(dataset.rejected["source"], dataset.rejected["detail"], strict=True))
    assert details["short.mp4"] == "8 frames, 12 are needed"
    assert "no face in 16 frames" in details["blank.mp4"]
    assert "of 27 frames" in details["lost.mp4"]
    assert details["text.mp4"].startswith("cannot open 'text.mp4' as a video")
    assert not any(str(videos) in detail for detail in details.values())


def test_clips_know_where_they_come_from(dataset: Dataset) -> None:
    clips = dataset.clips.set_index("id")
    assert clips.loc["hopper", "fps"] == pytest.approx(29.97, rel=1e-4)
    assert clips.loc["collins", "frames"] == FRAMES and clips.loc["collins", "first_frame"] == 0
    assert set(clips["split"]) == {"test"} and set(clips["label"]) == {"real"}
    shots = clips[clips["source"] == "shots.mp4"]
    assert list(shots.index) == ["shots~1", "shots~2"]
    assert list(shots["first_frame"]) == [0, FRAMES] and list(shots["frames"]) == [FRAMES, FRAMES]
    assert list(shots["identity"]) == ["shots", "shots"]


def test_people_in_view_together_have_identities_of_their_own(dataset: Dataset) -> None:
    """Of two faces of one size, the file's name is neither's for certain."""
    pair = dataset.clips[dataset.clips["source"] == "pair.mp4"]
    assert list(pair["identity"]) == ["pair~1", "pair~2"] and list(pair["first_frame"]) == [0, 0]


def test_much_the_largest_face_keeps_the_identity(tmp_path: Path) -> None:
    small = torch.nn.functional.interpolate(film(1).float(), size=(160, 160), mode="area").round().byte()
    big = torch.nn.functional.interpolate(film(0).float(), size=(384, 384), mode="area").round().byte()
    frames = torch.full((FRAMES, 3, 384, 560), 110, dtype=torch.uint8)
    frames[..., :384], frames[:, :, 100:260, 395:555] = big, small
    save(tmp_path / "in" / "anna.mp4", frames)
    run(tmp_path / "in", tmp_path / "out", workers=1)
    clips = open_dataset(tmp_path / "out").clips
    assert list(clips["identity"]) == ["anna", "anna~2"]


@pytest.mark.parametrize("id", ["collins", "wide", "odd", "grey", "pair~2"])
def test_crops_hold_the_head_and_landmarks_fit(dataset: Dataset, landmarker: Landmarker, id: str) -> None:
    clip, landmarks = dataset.read(id)
    assert clip.size == (256, 256) and landmarks.found.all()
    again = find_landmarks(clip.frames[::5], detector("dlib"), landmarker)
    assert again.found.all()
    eyes = (again.points[:, 36] - again.points[:, 45]).norm(dim=1)
    apart = (again.points - landmarks.points[::5]).norm(dim=2).mean(dim=1) / eyes
    assert apart.max() < 0.05
    face = landmarks.points.flatten(0, 1)
    assert face.min() > 10 and face.max() < 246
    assert 0.35 * 256 < float(face[:, 1].max() - face[:, 1].min()) < 0.75 * 256


def test_a_head_crop_keeps_its_pixels(videos: Path, dataset: Dataset) -> None:
    box = dataset.clips[dataset.clips["id"] == "collins"]["crop_box"].iloc[0]
    assert list(box) == [0, 0, 256, 256]
    clip, _ = dataset.read("collins", [3])
    assert (clip.frames[0].float() - film(0)[3].float()).abs().mean() < 4  # H.264 and JPEG


@pytest.mark.slow
def test_result_does_not_depend_on_the_number_of_workers(videos: Path, prepared: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "one", workers=1)
    assert content(tmp_path / "one") == content(prepared)


def test_a_finished_dataset_is_left_alone(videos: Path, prepared: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    report = run(videos, prepared)
    assert report == PrepareReport(
        {"prepared": 7, "unreadable": 3, "no face": 1, "face lost": 1, "too short": 2}, 9, 9 * FRAMES
    )
    assert before == {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}


def test_other_settings_for_the_same_folder_are_refused(videos: Path, prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"begun with jpeg_quality 95, and this command says 80"):
        run(videos, prepared, PrepareSettings(min_frames=12, detect_every=6, jpeg_quality=80))
    with pytest.raises(ConfigError, match=r"begun with detect_every 6, and this command says 5"):
        run(videos, prepared, PrepareSettings(min_frames=12, detect_every=5))
    with pytest.raises(ConfigError, match=r"finished dataset of other videos: 'blank.mp4'"):
        prepare(videos, prepared, sources_of(videos)[1:], SETTINGS)
    renamed = [Source(s.file, s.name, "someone", s.label, s.split) for s in sources_of(videos)]
    with pytest.raises(ConfigError, match=r"finished dataset of these videos, but of other splits, people or labels: "):
        prepare(videos, prepared, renamed, SETTINGS)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match=r"holds other files \('mine.txt'\)"):
        run(videos, tmp_path)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (PrepareSettings(size=8), "size"),
        (PrepareSettings(jpeg_quality=0), "quality"),
        (PrepareSettings(detect_every=0), "detect-every"),
        (PrepareSettings(min_frames=0), "min-frames"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path: Path, settings: PrepareSettings, name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name} .* is out of range"):
        prepare(tmp_path, tmp_path / "out", [], settings)


def test_fan_is_refused_before_a_folder_is_begun(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="theval weights fetch fan_2dfan4"):
        run(videos, tmp_path / "out", PrepareSettings(landmarks="fan"))
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written_says_so(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DatasetError, match=r"cannot write .*run the same command again"):
            run(videos, out)
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o555)
        with pytest.raises(DatasetError, match=r"Permission denied"):
            run(videos, tmp_path / "locked" / "out")


@pytest.mark.slow
def test_an_8k_video_fits(tmp_path: Path, landmarker: Landmarker) -> None:
    """7680 x 4320, with a head of 2000 pixels in it."""
    portrait = torch.nn.functional.interpolate(portraits()[0][None].float(), size=(2600, 2600), mode="bilinear")
    picture = np.full((4320, 7680, 3), 110, np.uint8)
    picture[900:3500, 3000:5600] = portrait[0].round().byte().permute(1, 2, 0).numpy()
    (tmp_path / "in").mkdir()
    encode(tmp_path / "in" / "8k.mkv", (picture for _ in range(3)), "mjpeg", "yuvj420p")
    report = run(tmp_path / "in", tmp_path / "out", PrepareSettings(min_frames=3), workers=1)
    assert report.clips == 1
    dataset = open_dataset(tmp_path / "out")
    x0, y0, x1, y1 = dataset.clips["crop_box"].iloc[0]
    assert 2500 < x0 < 3600 and 5000 < x1 < 6100 and 500 < y0 < 1500 and 3000 < y1 < 4300
    clip, landmarks = dataset.read("8k", [1])
    alone = find_landmarks(clip.frames, detector("dlib"), landmarker)
    assert (alone.points - landmarks.points).norm(dim=2).mean() < 4


@pytest.mark.slow
def test_mtcnn_finds_the_same_heads(tmp_path: Path) -> None:
    save(tmp_path / "in" / "collins.mp4", film(0))
    report = run(tmp_path / "in", tmp_path / "out", PrepareSettings(min_frames=12, detector="mtcnn"), workers=1)
    assert report.clips == 1
    dataset = open_dataset(tmp_path / "out")
    assert dataset.info.detector == "mtcnn" and dataset.info.landmarks == "dlib"
    assert "facenet-pytorch" in dataset.info.packages
    assert list(dataset.clips["frames"]) == [FRAMES]


# Interruptions. The command runs by itself, so that it can be killed.


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    for n in range(5):
        save(folder / f"{n}.mp4", film(n % 2, frames=12 + n))
    (folder / "text.mp4").write_text("no")
    return folder


@pytest.fixture(scope="module")
def undisturbed(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(work, out)
    return out


def start(work: Path, out: Path, *options: str, file_limit: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))

    arguments = ["prepare", str(work), str(out), "--min-frames", "12", "--detect-every", "6", "--split", "0,0,1"]
    return subprocess.Popen(
        [sys.executable, "-c", "from thead_eval.cli import main; main()", *arguments, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit,
    )


def wait_for_parts(out: Path, count: int) -> dict[Path, int]:
    """Parts that are whole, with the time when they were written."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        parts = {
            path: path.stat().st_mtime_ns for path in (out / ".parts").glob("*.json") if path.name != "settings.json"
        }
        if len(parts) >= count:
            return parts
        time.sleep(0.01)
    raise AssertionError(f"no {count} parts in '{out}' after two minutes")


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_dataset(work: Path, undisturbed: Path, tmp_path: Path) -> None:
    """kill -9 to the command alone: its workers end by themselves, and no finished part is made again."""
    out = tmp_path / "out"
    process = start(work, out, "--workers", "1")
    finished = wait_for_parts(out, 2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "dataset.json").exists()
    until = time.monotonic() + 30
    while processes_of(process.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not processes_of(process.pid)

    kept = {path: path.stat().st_mtime_ns for path in finished}
    assert kept == finished
    stamps: dict[Path, int] = {}

    def look(source: Source) -> None:
        stamps.update({path: path.stat().st_mtime_ns for path in finished})

    prepare(work, out, sources_of(work), SETTINGS, workers=1, report=look)
    assert stamps == finished  # until the last source was done
    assert content(out) == content(undisturbed)


def processes_of(session: int) -> list[int]:
    """The living processes of a session, by what the system says of each."""
    living = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields and int(fields[3]) == session and fields[0] != "Z":
            living.append(int(entry.name))
    return living


@pytest.mark.slow
def test_a_killed_worker_is_reported_and_the_command_continues(work: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(work, out, "--workers", "1")
    wait_for_parts(out, 1)
    workers = [pid for pid in processes_of(process.pid) if holds_a_model(pid)]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "a worker process was killed" in errors and "run the same command again" in errors
    assert "Traceback" not in errors
    run(work, out)
    assert content(out) == content(undisturbed)


def holds_a_model(pid: int) -> bool:
    """Of a command's processes only its workers grow beyond what they were born with."""
    command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return b"forkserver" in command_line and b"forkserver" in Path(f"/proc/{parent}/cmdline").read_bytes()


@pytest.mark.slow
def test_a_full_disk_loses_nothing(work: Path, undisturbed: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for it: the system refuses to write in the same way."""
    out = tmp_path / "out"
    process = start(work, out, "--workers", "2", file_limit=150_000)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "cannot write" in errors and "free some space and run the same command again" in errors
    assert "Traceback" not in errors and not (out / "dataset.json").exists()
    run(work, out)
    assert content(out) == content(undisturbed)


def test_two_commands_do_not_share_a_folder(work: Path, tmp_path: Path) -> None:
    def begin_another(source: Source) -> None:
        with pytest.raises(ConfigError, match="another 'theval prepare' is writing to"):
            run(work, tmp_path / "out")
        raise InterruptedError

    with pytest.raises(InterruptedError):
        prepare(work, tmp_path / "out", sources_of(work), SETTINGS, workers=1, report=begin_another)


@pytest.mark.slow
def test_a_changed_video_is_prepared_again(tmp_path: Path) -> None:
    """Between a kill and the next run."""
    save(tmp_path / "in" / "a.mp4", film(0))
    save(tmp_path / "in" / "b.mp4", film(1))

    def stop(source: Source) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        prepare(tmp_path / "in", tmp_path / "out", sources_of(tmp_path / "in"), SETTINGS, workers=1, report=stop)
    save(tmp_path / "in" / "a.mp4", film(1, frames=FRAMES + 3))
    save(tmp_path / "in" / "b.mp4", film(0, frames=FRAMES + 5))
    run(tmp_path / "in", tmp_path / "out")
    run(tmp_path / "in", tmp_path / "fresh")
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


# The command line.


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_command_prints_every_outcome(videos: Path, prepared: Path) -> None:
    options = ("--min-frames", "12", "--detect-every", "6", "--split", "0,0,1")
    code, printed, told = invoke(videos, prepared, *options)
    assert code == 0 and "9 clips, 144 frames" in printed
    assert told.startswith(
        "Layout flat (each file is its own person): 14 videos of 14 people: blank, collins, cut and 11 more."
    )
    for outcome, count in (("prepared", 7), ("unreadable", 3), ("no face", 1), ("face lost", 1), ("too short", 2)):
        assert any(outcome in line and f" {count} " in line for line in printed.splitlines())
    assert re.search(r"^people: train 0, val 0, test \d$", printed, re.MULTILINE)
    assert re.search(r"^cut\.mp4: unreadable: .+", printed, re.MULTILINE)
    code, printed, _ = invoke(videos, prepared, *options, "--json")
    counts = json.loads(printed)
    assert code == 0 and counts["inputs"] == sum(counts["outcomes"].values()) == 14
    assert counts["clips"] == 9 and counts["frames"] == 9 * FRAMES
    assert (counts["layout"], counts["people"], counts["left_out"]) == ("flat", 14, 0)


def test_no_clip_at_all_is_a_failure_with_reasons(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.mp4").write_text("no")
    for _ in range(2):  # the same again
        code, printed, errors = invoke(tmp_path / "in", tmp_path / "out", "--workers", "1")
        assert code == 1 and "unreadable" in printed
        assert "none of 1 videos gave a clip; the reasons are in" in errors
    assert (tmp_path / "out" / "clips.parquet").exists() and not (tmp_path / "out" / "dataset.json").exists()


def test_wrong_split_is_a_usage_error(tmp_path: Path) -> None:
    code, _, errors = invoke(tmp_path, tmp_path / "out", "--split", "70/15/15")
    assert code == 2 and "is not three numbers such as 0.7,0.15,0.15" in errors


# Many machines.


@pytest.mark.slow
def test_ray_gives_the_same_dataset(work: Path, undisturbed: Path, tmp_path: Path) -> None:
    if find_spec("ray") is None:
        pytest.skip("the Ray engine was NOT tested: install theval[ray]")
    script = (
        "import ray; ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
        "from thead_eval.cli import main; main()"
    )
    arguments = ["prepare", str(work), str(tmp_path / "out"), "--min-frames", "12", "--detect-every", "6"]
    arguments += ["--split", "0,0,1", "--engine", "ray"]
    ended = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert content(tmp_path / "out") == content(undisturbed)


def test_ray_is_asked_for_where_it_is_absent(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r'pip install "theval\[ray\]"'):
        invoke(work, tmp_path / "out", "--engine", "ray")


# The real clips.


def test_real_clips(real_data: Path, tmp_path: Path, landmarker: Landmarker) -> None:
    """Eight of them, with a manifest: none is rejected, frames and heads are whole."""
    chosen = find_sources(real_data / "real", "auto", Ratios(0.7, 0.15, 0.15), real_data / "catalogue.csv")[::21]
    report = prepare(real_data / "real", tmp_path / "out", chosen, PrepareSettings(), workers=2)
    assert report.outcomes["prepared"] == len(chosen) == 8
    dataset = open_dataset(tmp_path / "out")
    assert set(dataset.clips["identity"]) == {source.identity for source in chosen}
    for id in dataset.clips["id"]:
        clip, landmarks = dataset.read(id, [0, 24, 47])
        again = find_landmarks(clip.frames, detector("dlib"), landmarker)
        eyes = (again.points[:, 36] - again.points[:, 45]).norm(dim=1)
        apart = (again.points - landmarks.points).norm(dim=2).mean(dim=1) / eyes
        assert apart[again.found].max() < 0.1 and again.found.sum() >= 2
