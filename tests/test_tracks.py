"""Landmark tracks: followed through a video, kept in a file, carried by the package, and what goes wrong with them."""

import json
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from thead_eval.cli.track import command
from thead_eval.errors import ConfigError, MediaError, NoFaceFound
from thead_eval.media import write_clip
from thead_eval.motions import make_motion
from thead_eval.retarget import find_neutral
from thead_eval.synthetic import head_clip
from thead_eval.testing import write_video
from thead_eval.tracks import (
    NAMED,
    DrivingTrack,
    NamedTrack,
    TrackInfo,
    bridge_gaps,
    read_driver,
    read_track,
    take_out_jitter,
    track_video,
    write_track,
)
from thead_eval.types import Clip, Landmarks


def track_of(points: Tensor, found: Tensor | None = None, fps: float = 10.0) -> DrivingTrack:
    found = torch.ones(len(points), dtype=torch.bool) if found is None else found
    points = points.where(found[:, None, None], torch.nan)
    return DrivingTrack(TrackInfo(name="made", fps=fps, height=256, width=256), Landmarks(points, found), "")


@pytest.fixture(scope="module")
def head() -> tuple[Clip, Landmarks]:
    return head_clip(3, 20, 200, fps=10)


@pytest.fixture(scope="module")
def video(head: tuple[Clip, Landmarks], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "head.mp4"
    write_clip(path, head[0])
    return path


def eyes_apart(points: Tensor) -> float:
    return float((points[:, 36] - points[:, 45]).norm(dim=-1).mean())


# Following.


def test_a_face_is_followed_through_a_video(video: Path, head: tuple[Clip, Landmarks]) -> None:
    track = track_video(video)
    assert len(track) == 20 and track.landmarks.found.all()
    assert (track.info.fps, track.info.height, track.info.width) == (10.0, 200, 200)
    assert track.info.source_sha256 == track.sha256 != ""
    error = (track.landmarks.points - head[1].points)[:, 17:].norm(dim=-1).mean()
    assert error < 0.1 * eyes_apart(head[1].points)


def test_two_faces_of_like_size_have_to_be_told_apart(head: tuple[Clip, Landmarks], tmp_path: Path) -> None:
    other = head_clip(8, 20, 200, fps=10)[0]
    write_video(tmp_path / "two.mp4", torch.cat([head[0].frames, other.frames], 3), 10.0)
    with pytest.raises(NoFaceFound, match=r"two\.mp4' shows 2 faces of like size .*choose one with 'theval track"):
        track_video(tmp_path / "two.mp4")
    left, right = (track_video(tmp_path / "two.mp4", face=number).landmarks for number in (1, 2))
    assert left.points[:, :, 0].max() < 210 and right.points[:, :, 0].min() > 190
    with pytest.raises(NoFaceFound, match="at most 2 faces at once, and --face asks for number 3"):
        track_video(tmp_path / "two.mp4", face=3)


def test_a_lost_face_is_taken_up_again(head: tuple[Clip, Landmarks], tmp_path: Path) -> None:
    frames = head[0].frames.clone()
    frames[8:12] = 90
    write_video(tmp_path / "gap.mp4", frames, 10.0)
    track = track_video(tmp_path / "gap.mp4")
    assert track.landmarks.found[:8].all() and track.landmarks.found[12:].all()
    assert not track.landmarks.found[8:12].any()
    assert bridge_gaps(track).points.isfinite().all()


def test_a_driver_that_loses_its_face_midway(head: tuple[Clip, Landmarks], tmp_path: Path) -> None:
    frames = head[0].frames.clone()
    frames[8:] = 90
    write_video(tmp_path / "lost.mp4", frames, 10.0)
    track = track_video(tmp_path / "lost.mp4")
    with pytest.raises(
        NoFaceFound, match=r"'lost\.mp4' loses its face from second 0\.8 to 2\.0; cut .* or pass --hold"
    ):
        bridge_gaps(track)
    held = bridge_gaps(track, hold=True)
    assert (held.points[8:] == held.points[7]).all()


def test_videos_that_cannot_drive(tmp_path: Path) -> None:
    write_video(tmp_path / "wall.mp4", torch.full((5, 3, 120, 120), 90, dtype=torch.uint8))
    with pytest.raises(NoFaceFound, match=r"no face in 5 frames of '.*wall\.mp4'"):
        track_video(tmp_path / "wall.mp4")
    for suffix in ("avi", "mkv", "mp4"):  # a header and no frame
        with av.open(tmp_path / f"empty.{suffix}", "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            container.start_encoding()
        with pytest.raises(MediaError, match=rf"(cannot open )?'.*empty\.{suffix}' (as a video|holds no)"):
            track_video(tmp_path / f"empty.{suffix}")
    (tmp_path / "nothing.mp4").touch()
    with pytest.raises(MediaError, match=r"cannot open '.*nothing\.mp4' as a video"):
        track_video(tmp_path / "nothing.mp4")


# Gaps, jitter, framing.


def test_short_gaps_are_crossed_in_a_straight_line() -> None:
    points = torch.arange(12.0)[:, None, None] * torch.ones(68, 2)
    found = torch.ones(12, dtype=torch.bool)
    found[[0, 4, 5, 11]] = False
    filled = bridge_gaps(track_of(points, found))
    expected = points.clone()
    expected[0], expected[11] = 1.0, 10.0  # held at the ends
    torch.testing.assert_close(filled.points, expected)
    assert filled.found.all()


def test_a_track_without_any_face_says_so() -> None:
    with pytest.raises(NoFaceFound, match="'made' shows no face in 3 frames"):
        bridge_gaps(track_of(torch.zeros(3, 68, 2), torch.zeros(3, dtype=torch.bool)))


def test_jitter_goes_and_motion_stays() -> None:
    t = torch.arange(40.0)[:, None, None]
    smooth = (100 + 2 * t - 0.03 * t * t) * torch.ones(68, 2)
    noise = torch.randn(40, 68, 2, generator=torch.Generator().manual_seed(0))
    clean, noisy = (take_out_jitter(track_of(points).landmarks, 25.0).points for points in (smooth, smooth + noise))
    torch.testing.assert_close(clean, smooth, rtol=0, atol=1e-3)  # a parabola is its own smoothing
    assert (noisy - smooth).std() < 0.75 * noise.std()
    short, slow = track_of(smooth[:3]).landmarks, track_of(smooth).landmarks
    assert take_out_jitter(short, 25.0) is short
    assert take_out_jitter(slow, 12.5) is slow


# Files.


def test_a_track_file_reads_back_and_is_the_same_each_time(tmp_path: Path) -> None:
    points = torch.rand(7, 68, 2, generator=torch.Generator().manual_seed(0)) * 256
    found = torch.tensor([True] * 5 + [False, True])
    track = track_of(points, found)
    for name in ("a.parquet", "b.parquet"):
        write_track(tmp_path / name, track)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    back = read_track(tmp_path / "a.parquet")
    assert back.info == track.info and torch.equal(back.landmarks.found, found)
    torch.testing.assert_close(back.landmarks.points, track.landmarks.points, rtol=0, atol=0, equal_nan=True)
    assert back.sha256 != ""
    assert pq.read_table(tmp_path / "a.parquet").column_names == ["frame", "landmarks", "found"]
    with pytest.raises(MediaError, match="cannot write"):
        write_track(tmp_path / "absent" / "a.parquet", track)


def test_files_that_are_no_tracks_say_so(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ConfigError, match=r"text\.parquet' is not a landmark track that can be read"):
        read_track(tmp_path / "text.parquet")
    write_track(tmp_path / "whole.parquet", track_of(torch.zeros(30, 68, 2)))
    content = (tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"cut\.parquet' is not a landmark track"):
        read_track(tmp_path / "cut.parquet")
    pq.write_table(pq.read_table(tmp_path / "whole.parquet").replace_schema_metadata(None), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match=r"other\.parquet' is not a landmark track"):
        read_driver(str(tmp_path / "other.parquet"))
    write_track(tmp_path / "empty.parquet", track_of(torch.zeros(0, 68, 2)))
    with pytest.raises(ConfigError, match=r"empty\.parquet' has no frames"):
        read_track(tmp_path / "empty.parquet")
    with pytest.raises(ConfigError, match=r"no file 'nodd' to drive with; give .* nod, smile, talk"):
        read_driver("nodd")


# What the package carries.


@pytest.mark.parametrize("name", NAMED)
def test_a_named_track_is_what_its_command_draws(name: NamedTrack) -> None:
    track, drawn = read_driver(name), make_motion(name)
    assert track.info == drawn.info
    torch.testing.assert_close(track.landmarks.points, drawn.landmarks.points, rtol=0, atol=0.01)


@pytest.mark.parametrize("name", NAMED)
def test_a_named_track_begins_and_ends_at_rest(name: NamedTrack) -> None:
    points = read_driver(name).landmarks.points
    assert (points[0] - points[-1]).norm(dim=-1).max() < 0.01 * eyes_apart(points)
    neutral = points[find_neutral(read_driver(name).landmarks)]
    assert (points[0] - neutral).norm(dim=-1).max() < 0.1 * eyes_apart(points)
    steps = (points[1:] - points[:-1]).norm(dim=-1).max()
    assert steps < 0.25 * eyes_apart(points), "no frame may jump"


def test_the_names_say_what_moves() -> None:
    def reach(name: NamedTrack, a: int, b: int) -> float:
        points = read_driver(name).landmarks.points
        apart = (points[:, a] - points[:, b]).norm(dim=-1) / eyes_apart(points)
        return float(apart.max() - apart.min())

    assert reach("talk", 62, 66) > 2 * max(reach("nod", 62, 66), reach("smile", 62, 66)), "lips part"
    assert reach("smile", 48, 54) > max(reach("nod", 48, 54), reach("talk", 48, 54)), "corners of the mouth"
    nose = read_driver("nod").landmarks.points[:, 30, 1]
    assert np.ptp(nose.numpy()) > np.ptp(read_driver("talk").landmarks.points[:, 30, 1].numpy())


# The command.


def test_the_command_writes_a_track(video: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(command, [str(video), "-o", str(tmp_path / "t.parquet"), "--json"])
    assert ran.exit_code == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert (said["frames"], said["frames_without_face"], said["fps"]) == (20, 0, 10.0)
    assert len(read_driver(str(tmp_path / "t.parquet"))) == 20
    again = CliRunner().invoke(command, [str(video), "-o", str(tmp_path / "again.parquet")])
    assert "20 frames at 10 a second" in again.stdout
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "t.parquet").read_bytes()


def test_the_command_names_what_it_cannot_write(video: Path, tmp_path: Path) -> None:
    for out, message in (("t.csv", r"must end in \.parquet"), ("absent/t.parquet", "there is no folder")):
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(command, [str(video), "-o", str(tmp_path / out)], catch_exceptions=False)
