"""Video and image files: round trips, what damaged files say, and the shapes that files come in."""

import resource
import signal
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
import torch
from PIL import Image

from thead_eval.errors import MediaError
from thead_eval.media import (
    iter_frames,
    open_writer,
    probe_video,
    read_clip,
    read_image,
    read_metadata,
    write_clip,
    write_image,
    write_images,
)
from thead_eval.pictures import decode_frames, shown_at
from thead_eval.testing import write_video
from thead_eval.types import Clip


def noise_clip(frames: int = 5, height: int = 48, width: int = 64, fps: float = 25.0) -> Clip:
    generator = torch.Generator().manual_seed(0)
    return Clip("noise", torch.randint(0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=generator), fps)


def smooth_clip(frames: int = 10, height: int = 48, width: int = 64) -> Clip:
    ramp = torch.linspace(0, 255, width).expand(height, width)
    picture = torch.stack([ramp, ramp.flip(1), torch.full_like(ramp, 90)])
    return Clip("ramp", picture.round().to(torch.uint8).repeat(frames, 1, 1, 1), 25.0)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(
            MediaError, match=r"cannot write .* \(File too large\); check the folder and the free space"
        ):
            write_clip(tmp_path / name, noise_clip(height=96, width=96))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


def test_lossless_clip_reads_back_exactly(tmp_path: Path) -> None:
    for height, width in ((48, 64), (243, 321)):
        clip = noise_clip(height=height, width=width)
        write_clip(tmp_path / "a.mkv", clip, lossless=True)
        assert torch.equal(read_clip(tmp_path / "a.mkv").frames, clip.frames)


def test_lossy_clip_reads_back_nearly(tmp_path: Path) -> None:
    clip = smooth_clip()
    for name in ("a.mp4", "a.mkv", "a.mov"):
        write_clip(tmp_path / name, clip)
        back = read_clip(tmp_path / name)
        assert back.id == "a" and len(back) == len(clip) and back.fps == 25.0
        assert (back.frames.float() - clip.frames.float()).abs().mean() < 3


def test_odd_sizes_are_kept(tmp_path: Path) -> None:
    write_clip(tmp_path / "odd.mp4", smooth_clip(height=243, width=321))
    assert read_clip(tmp_path / "odd.mp4").size == (243, 321)


@pytest.mark.parametrize("fps", [23.976023976023978, 24.0, 25.0, 29.97002997002997, 60.0, 12.5])
def test_frame_rate_survives(tmp_path: Path, fps: float) -> None:
    for name in ("a.mp4", "a.mkv"):
        write_clip(tmp_path / name, noise_clip(fps=fps), lossless=name == "a.mkv")
        assert probe_video(tmp_path / name).fps == pytest.approx(fps, rel=1e-5)


def test_same_clip_gives_same_bytes(tmp_path: Path) -> None:
    for name, lossless in (("a.mkv", True), ("a.mp4", False)):
        write_clip(tmp_path / name, noise_clip(), lossless=lossless, synthetic="copy")
        write_clip(tmp_path / f"again-{name}", noise_clip(), lossless=lossless, synthetic="copy")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_synthetic_clip_says_so_in_its_metadata(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / name, noise_clip(), synthetic="warp", metadata={"shots": "8"})
    tags = read_metadata(tmp_path / name)
    assert tags["comment"] == "Synthetic media made by theval generator warp"
    assert tags["digitalsourcetype"].endswith("trainedAlgorithmicMedia")
    assert tags["shots"] == "8"
    write_clip(tmp_path / name, noise_clip())
    assert "comment" not in read_metadata(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_a_synthetic_file_carries_xmp_after_all_else(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / name, noise_clip(), synthetic="warp")
    content = (tmp_path / name).read_bytes()
    boxes, at = [], 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        boxes.append((content[at + 4 : at + 8], content[at + 8 : at + size]))
        at += size
    kind, box = boxes[-1]
    assert at == len(content) and kind == b"uuid" and box[:16].hex() == "be7acfcb97a942e89c71999491e3afac"
    tree = ElementTree.fromstring(box[16:].decode())
    assert any(value.endswith("/trainedAlgorithmicMedia") for node in tree.iter() for value in node.attrib.values())
    assert len(read_clip(tmp_path / name)) == 5


def test_pictures_are_marked_too(tmp_path: Path) -> None:
    frames = noise_clip(3).frames  # of which no two are alike: a GIF joins those
    for name in ("a.png", "a.jpg", "a.gif"):
        write_images(tmp_path / name, frames if name == "a.gif" else frames[:1], seconds=0.2, synthetic="warp")
        write_images(tmp_path / f"plain-{name}", frames[:1])
        with Image.open(tmp_path / name) as image:
            assert "Synthetic media made by theval generator warp" in str(image.info), name
        assert b"trainedAlgorithmicMedia" in (tmp_path / name).read_bytes(), name
        assert b"ynthetic" not in (tmp_path / f"plain-{name}").read_bytes()
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.info["duration"]) == (3, 200)  # type: ignore[attr-defined]  # of a GIF
    assert torch.equal(read_image(tmp_path / "a.png"), frames[0])
    with pytest.raises(MediaError, match=r"suffix '\.bmp' is not \.png, \.jpg or \.gif"):
        write_image(tmp_path / "a.bmp", frames[0])
    with pytest.raises(MediaError, match="cannot write"):
        write_image(tmp_path / "absent" / "a.png", frames[0])


def test_colours_are_stated_as_they_are_coded(tmp_path: Path) -> None:
    """Players take a large picture without a word for BT.709 and FFmpeg's own conversion is BT.601."""
    green = torch.zeros(2, 3, 48, 64, dtype=torch.uint8)
    green[:, 1] = 200
    write_clip(tmp_path / "a.mp4", Clip("green", green, 25.0))
    with av.open(tmp_path / "a.mp4") as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_primaries, frame.color_range) == (1, 1, 1)
    assert abs(int(frame.to_ndarray()[0, 0]) - (16 + 0.7152 * 219 * 200 / 255)) <= 1
    assert (read_clip(tmp_path / "a.mp4").frames.float() - green.float()).abs().max() <= 3


def test_frames_are_written_as_they_come(tmp_path: Path) -> None:
    clip = noise_clip(frames=7)
    with open_writer(tmp_path / "a.mkv", clip.size, clip.fps, lossless=True) as write:
        for frame in clip.frames:
            write(frame[None])
        assert not (tmp_path / "a.mkv").exists()
    write_clip(tmp_path / "b.mkv", clip, lossless=True)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_what_fails_on_the_way_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("earlier")
    with pytest.raises(ZeroDivisionError), open_writer(tmp_path / "a.mp4", (48, 64), 25.0) as write:
        write(noise_clip().frames)
        1 / 0  # noqa: B018  # what a generator may do
    with pytest.raises(MediaError, match="there were no frames"), open_writer(tmp_path / "a.mp4", (48, 64), 25.0):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "earlier"


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        with pytest.raises(MediaError, match=r"cannot write .*File too large"):
            write_clip(tmp_path / "a.mp4", noise_clip(40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def write_with_sound(path: Path, codec: str, seconds: float = 2.0, beep: float = 1.0) -> None:
    """Pictures at 10 a second with silence, in which a tone begins at `beep`."""
    with av.open(path, "w") as container:
        video, audio = container.add_stream("libx264", rate=10), container.add_stream(codec, rate=16000)
        assert isinstance(audio, av.AudioStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio.codec_context.layout = "mono"
        for picture in noise_clip(round(10 * seconds)).frames:
            rgb = picture.permute(1, 2, 0).contiguous().numpy()
            container.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(video.encode(None))
        time = np.arange(round(16000 * seconds)) / 16000
        tone = (0.5 * np.sin(2 * np.pi * 440 * time) * (time >= beep)).astype(np.float32)
        for start in range(0, len(tone), 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))


def hear(path: Path) -> tuple[str, float, float]:
    """The sound's codec, when the tone begins, and when all ends, in seconds."""
    with av.open(path) as container:
        stream = container.streams.audio[0]
        begin, end = 99.0, 0.0
        for frame in container.decode(stream):
            samples = np.abs(frame.to_ndarray().astype(np.float64))
            samples = samples / (32768 if frame.format.name.startswith("s16") else 1)
            assert frame.time is not None
            loud = np.flatnonzero(samples.max(0) > 0.2)
            if len(loud):
                begin = min(begin, frame.time + loud[0] / stream.rate)
            end = frame.time + frame.samples / stream.rate
        return stream.codec_context.name, begin, end


@pytest.mark.parametrize(
    ("source", "codec", "target", "kept"),
    [("a.mp4", "aac", "b.mp4", "aac"), ("a.mkv", "libmp3lame", "b.mp4", "mp3"), ("a.avi", "adpcm_ms", "b.mp4", "aac")],
)
def test_sound_is_taken_over_in_time(tmp_path: Path, source: str, codec: str, target: str, kept: str) -> None:
    write_with_sound(tmp_path / source, codec)
    for name in (target, f"again-{target}"):
        with open_writer(tmp_path / name, (48, 64), 10.0, synthetic="warp", sound=tmp_path / source) as write:
            write(noise_clip(15).frames)  # fewer than the source has
    assert (tmp_path / target).read_bytes() == (tmp_path / f"again-{target}").read_bytes()
    name, begin, end = hear(tmp_path / target)
    assert name.startswith(kept)  # the decoder of MP3 is called mp3float
    assert begin == pytest.approx(hear(tmp_path / source)[1], abs=0.03)
    assert end == pytest.approx(1.5, abs=0.15)
    assert len(read_clip(tmp_path / target)) == 15


def test_a_video_without_sound_has_none_to_give(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", noise_clip())
    with pytest.raises(MediaError, match=r"a\.mp4' has no sound to take over"):
        with open_writer(tmp_path / "b.mp4", (48, 64), 10.0, sound=tmp_path / "a.mp4") as write:
            write(noise_clip().frames)
    assert not (tmp_path / "b.mp4").exists()


def test_batches_stream_all_frames_in_order(tmp_path: Path) -> None:
    clip = noise_clip(frames=7)
    write_clip(tmp_path / "a.mkv", clip, lossless=True)
    batches = list(iter_frames(tmp_path / "a.mkv", batch=3))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert torch.equal(torch.cat(batches), clip.frames)
    assert torch.equal(read_clip(tmp_path / "a.mkv", id="b", max_frames=4).frames, clip.frames[:4])


def test_rotation_is_applied(tmp_path: Path) -> None:
    """A phone's portrait video is stored lying on its side, with a note to turn it."""
    path = tmp_path / "phone.mp4"
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, 32:] = (220, 30, 30)  # the right half is red
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(path) as container:
        rotation = next(container.decode(video=0)).rotation
    clip = read_clip(path)
    assert abs(rotation) == 90 and clip.size == (64, 48)
    # Counter-clockwise by 90 degrees brings the right side to the top.
    red_on_top = clip.frames[0, 0, :32].float().mean() > clip.frames[0, 0, 32:].float().mean() + 100
    assert bool(red_on_top) == (rotation == 90)


def test_variable_frame_rate_gives_each_stored_frame_once(tmp_path: Path) -> None:
    path = tmp_path / "variable.mkv"
    clip = noise_clip(frames=6)
    times = [0, 40, 80, 300, 310, 900]
    write_video(path, clip.frames, codec="ffv1", pixels="bgr0", milliseconds=times)
    assert torch.equal(read_clip(path).frames, clip.frames)
    seconds = shown_at([frame.time for frame in decode_frames(path)], 10)
    assert seconds == pytest.approx([0, 0.04, 0.08, 0.3, 0.31, 0.9, 1.0])


def test_a_rate_that_no_camera_has_is_counted(tmp_path: Path) -> None:
    for name in ("browser.webm", "browser.mkv"):
        times = [33 * number + 5 * (number % 3) for number in range(20)]
        codec = "libvpx" if name.endswith("webm") else "libx264"
        write_video(tmp_path / name, noise_clip(frames=20).frames, codec=codec, milliseconds=times)
        assert probe_video(tmp_path / name).fps == pytest.approx(30, abs=1)
    write_video(tmp_path / "one.mkv", noise_clip(frames=1).frames, milliseconds=[0])
    assert probe_video(tmp_path / "one.mkv").fps == 25


def test_where_the_clock_is_missing_stands_or_runs_back_frames_are_counted() -> None:
    assert shown_at([5.0, 5.1, 5.3], 10) == pytest.approx([0, 0.1, 0.3, 0.4])
    for clock in ([0.0, None, 0.3], [0.0, 0.3, 0.1], [0.0, 0.0, 0.1]):
        assert shown_at(clock, 10) == pytest.approx([0, 0.1, 0.2, 0.3])


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    text, empty, cut, absent = (tmp_path / name for name in ("text.mp4", "empty.mp4", "cut.mp4", "absent.mp4"))
    text.write_text("this is not a video\n" * 50)
    empty.touch()
    write_clip(tmp_path / "whole.mp4", noise_clip(frames=40))
    content = (tmp_path / "whole.mp4").read_bytes()
    cut.write_bytes(content[: len(content) // 2])  # without its index, which comes last
    for path in (text, empty, cut, absent, tmp_path):
        with pytest.raises(MediaError, match=f"cannot open '{path}' as a video"):
            read_clip(path)
        with pytest.raises(MediaError, match=str(path)):
            probe_video(path)


def test_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    """Cut in the middle of the pictures, with an index that still states all of them."""
    with av.open(tmp_path / "whole.mp4", "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in noise_clip(frames=60).frames:
            rgb = pixels.permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"cut\.mp4' (ends|is damaged) after .*download or export it again"):
        read_clip(tmp_path / "cut.mp4")


def test_a_matroska_file_that_ends_early_is_an_error(tmp_path: Path) -> None:
    """It states a time in place of a number of frames."""
    clip = noise_clip(frames=60, fps=25)
    write_clip(tmp_path / "whole.mkv", clip, lossless=True)
    assert len(read_clip(tmp_path / "whole.mkv")) == 60
    content = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"cut\.mkv' ends after 1\.\d of 2\.4 seconds; download or export it again"):
        read_clip(tmp_path / "cut.mkv")


def test_sound_alone_is_not_a_video(tmp_path: Path) -> None:
    with av.open(tmp_path / "sound.mp4", "w") as container:
        stream = container.add_stream("aac", rate=16000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="holds no video"):
        read_clip(tmp_path / "sound.mp4")


def test_clips_that_cannot_be_written_say_why(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="has no frames"):
        write_clip(tmp_path / "a.mkv", Clip("none", torch.zeros(0, 3, 8, 8, dtype=torch.uint8), 25.0))
    with pytest.raises(MediaError, match=r"suffix \.mkv"):
        write_clip(tmp_path / "a.mp4", noise_clip(), lossless=True)
    with pytest.raises(MediaError, match=r"suffix '\.xyz'"):
        write_clip(tmp_path / "a.xyz", noise_clip())
    with pytest.raises(MediaError, match="cannot write"):
        write_clip(tmp_path / "absent" / "a.mkv", noise_clip())
    assert not list(tmp_path.iterdir())


def test_image_modes_become_rgb(tmp_path: Path) -> None:
    grey = np.full((4, 6), 77, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png"), torch.full((3, 4, 6), 77, dtype=torch.uint8))
    Image.fromarray(np.full((4, 6), 0x8080, np.uint16)).save(tmp_path / "deep.png")
    assert torch.equal(read_image(tmp_path / "deep.png"), torch.full((3, 4, 6), 0x80, dtype=torch.uint8))
    clear = np.zeros((4, 6, 4), np.uint8)
    clear[:, 3:] = (10, 20, 30, 255)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    image = read_image(tmp_path / "clear.png")
    assert image[:, 0, 0].tolist() == [255, 255, 255] and image[:, 0, 5].tolist() == [10, 20, 30]
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).convert("CMYK").save(tmp_path / "print.jpg")
    assert read_image(tmp_path / "print.jpg").shape == (3, 4, 6)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tmp_path / "phone.jpg", exif=exif)
    assert read_image(tmp_path / "phone.jpg").shape == (3, 60, 40)


def test_unreadable_images_say_why(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(MediaError, match=r"text\.png' is not an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(MediaError, match=r"absent\.png' \(No such file"):
        read_image(tmp_path / "absent.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"cut\.png'"):
        read_image(tmp_path / "cut.png")
