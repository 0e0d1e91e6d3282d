"""theval generate: photos to a talking head, fakes of everyone in a dataset, and the marks on both."""

import csv
import datetime
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import matplotlib
import numpy as np
import pytest
import skimage
import torch
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

import detectors.checkpoint
from generator import adapt
from generator.talker import load_talker
from generator.warp import warp
from tests.test_fewshot import write_checkpoint
from thead_eval import plugins
from thead_eval.cli.generate import TUNED, command
from thead_eval.credentials import read_credentials
from thead_eval.errors import CheckpointError, ConfigError, MediaError, NoFaceFound, PluginError, RunError, ThevalError
from thead_eval.manifest import read_manifest, typed_command
from thead_eval.media import read_clip, read_image, read_metadata, write_clip
from thead_eval.plugins import BUILT_IN
from thead_eval.portraits import crop_portrait
from thead_eval.puppets import CHUNK, animate
from thead_eval.synthetic import head_clip
from thead_eval.testing import make_dataset
from thead_eval.tracks import read_driver, track_video, write_track
from thead_eval.types import Clip, Landmarks
from thead_eval.weights import sha256_of

HOPPER = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"  # in the public domain
COLLINS = Path(skimage.__file__).parent / "data" / "astronaut.png"  # too
LABEL_ROWS = 235  # in the last 21 rows of 256 is the label


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def refused(error: type[ThevalError], match: str, *arguments: str | Path) -> None:
    """One sentence, and nothing written."""
    with pytest.raises(error, match=match) as raised:
        run(*arguments)
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A procedural head that talks for a second."""
    path = tmp_path_factory.mktemp("driver") / "driver.mp4"
    write_clip(path, head_clip(3, 12, 160, fps=10)[0])
    return path


@pytest.fixture(scope="module")
def made(driver: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The usual command, once: its folder and what it said."""
    folder = tmp_path_factory.mktemp("made")
    ran = run(
        *("--photos", HOPPER, "--drive", driver, "--generator", "warp", "--json", "-o", folder / "fake.mp4"),
        *("--preview", folder / "fake.gif", "--show-crop", folder / "crop.png"),
    )
    said: dict[str, Any] = json.loads(ran.stdout)
    return folder, said


# A portrait.


def test_a_photo_moves_at_the_drivers_frame_rate(made: tuple[Path, dict[str, Any]]) -> None:
    folder, said = made
    clip = read_clip(folder / "fake.mp4")
    assert (len(clip), clip.fps, clip.size) == (12, 10.0, (256, 256))
    assert (said["frames"], said["fps"], said["width"], said["generator"], said["shots"]) == (12, 10.0, 256, "warp", 1)
    assert (clip.frames[0].float() - clip.frames[-1].float()).abs().mean() > 1, "nothing moves"
    still = crop_portrait(read_image(HOPPER), "hopper", 256).support.frames[0]
    assert (clip.frames.float() - still.float()).abs().mean() < 30, "somebody else"


def test_what_is_made_says_so(made: tuple[Path, dict[str, Any]], driver: Path) -> None:
    folder, said = made
    tags = read_metadata(folder / "fake.mp4")
    assert tags["comment"] == "Synthetic media made by theval generator warp"
    assert b"Iptc4xmpExt:DigitalSourceType" in (folder / "fake.mp4").read_bytes()
    preview, row = read_manifest(folder)
    assert (preview.file, preview.frames, preview.fps) == ("fake.gif", 12, 10.0)
    assert preview.sha256 == sha256_of(folder / "fake.gif")
    assert (row.file, row.label, row.generator, row.identity) == ("fake.mp4", "warp", "warp", "grace_hopper")
    assert row.sha256 == sha256_of(folder / "fake.mp4") == said["sha256"]
    assert row.source_sha256 == sha256_of(HOPPER) and row.driver_sha256 == sha256_of(driver)
    assert row.command == typed_command() and row.driver == "driver.mp4"  # of this process
    with Image.open(folder / "fake.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 12 and gif.size == (256, 256)
        assert "Synthetic media" in str(gif.info["comment"])
    assert read_image(folder / "crop.png").shape == (3, 600, 512 + 600)


def test_the_same_command_makes_the_same_bytes(made: tuple[Path, dict[str, Any]], driver: Path, tmp_path: Path) -> None:
    run(*("--photos", HOPPER, "--drive", driver, "--generator", "warp", "-o", tmp_path / "fake.mp4"))
    assert (tmp_path / "fake.mp4").read_bytes() == (made[0] / "fake.mp4").read_bytes()
    run(*("--photos", HOPPER, "--drive", driver, "--generator", "warp", "-o", tmp_path / "fake.mp4"))
    assert len(read_manifest(tmp_path)) == 1, "a file made again has one row"


def test_the_label_can_be_left_out_and_the_metadata_not(
    made: tuple[Path, dict[str, Any]], driver: Path, tmp_path: Path
) -> None:
    run(*("--photos", HOPPER, "--drive", driver, "--generator", "warp", "--no-label", "-o", tmp_path / "fake.mp4"))
    with_label, without = read_clip(made[0] / "fake.mp4").frames, read_clip(tmp_path / "fake.mp4").frames
    changed = (with_label.float() - without.float()).abs().mean(dim=(0, 1))  # [H, W]
    assert changed[LABEL_ROWS:, :60].mean() > 20 and changed[: LABEL_ROWS - 10].mean() < 1
    assert read_metadata(tmp_path / "fake.mp4")["comment"].startswith("Synthetic")
    assert b"trainedAlgorithmicMedia" in (tmp_path / "fake.mp4").read_bytes()


def test_a_track_drives_as_its_video_does(made: tuple[Path, dict[str, Any]], driver: Path, tmp_path: Path) -> None:
    write_track(tmp_path / "track.parquet", track_video(driver))
    options = ("--generator", "warp", "-o", tmp_path / "fake.mp4", "--preview", tmp_path / "strip.png")
    run("--photos", HOPPER, "--drive", tmp_path / "track.parquet", *options)
    assert (tmp_path / "fake.mp4").read_bytes() == (made[0] / "fake.mp4").read_bytes()
    assert read_image(tmp_path / "strip.png").shape == (3, 256, 8 * 256)


def test_one_photo_and_a_name_are_enough(tmp_path: Path) -> None:
    points = ("--save-points", tmp_path / "nod.npy")
    ran = run(HOPPER, "--drive", "nod", "--generator", "warp", "-o", tmp_path / "nod.mp4", "--size", "64", *points)
    assert np.load(tmp_path / "nod.npy").shape == (75, 68, 2)
    assert "75 frames of 64x64 at 25 a second, made by 'warp' from 1 photo, marked as synthetic" in ran.stdout


def test_more_photos_are_more_support(driver: Path, tmp_path: Path) -> None:
    with Image.open(HOPPER) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirror.png")
    options = ("--drive", driver, "--generator", "warp", "--size", "64", "--json", "-o", tmp_path / "fake.mp4")
    ran = run("--photos", HOPPER, tmp_path / "mirror.png", *options)
    assert json.loads(ran.stdout)["shots"] == 2
    assert "somebody else" not in ran.stderr
    assert read_manifest(tmp_path)[0].sources == "grace_hopper.jpg;mirror.png"


def test_photos_of_two_people_are_noticed(driver: Path, tmp_path: Path) -> None:
    options = ("--drive", driver, "--generator", "warp", "--size", "64", "-o", tmp_path / "fake.mp4")
    ran = run("--photos", HOPPER, COLLINS, *options)
    assert "'astronaut.png' seems to show somebody else than 'grace_hopper.jpg'; the video will be" in ran.stderr


def test_parts_of_the_motion(made: tuple[Path, dict[str, Any]], driver: Path, tmp_path: Path) -> None:
    clips = {"all": read_clip(made[0] / "fake.mp4").frames.float()}
    for motion in ("head", "expression"):
        out = tmp_path / f"{motion}.mp4"
        run(*("--photos", HOPPER, "--drive", driver, "--generator", "warp", "--motion", motion, "-o", out))
        clips[motion] = read_clip(out).frames.float()
    moved = {name: (clip[0] - clip[1:]).abs()[:, :, :LABEL_ROWS].mean() for name, clip in clips.items()}
    assert moved["expression"] < 0.6 * moved["head"], "hair and shoulders stay where only the face moves"
    assert (clips["head"] - clips["all"]).abs().mean() > 0.2


def test_the_same_person_is_taken_as_posed(tmp_path: Path) -> None:
    clip = head_clip(7, 12, 256, fps=3)[0]
    write_clip(tmp_path / "clip.mp4", clip)
    Image.fromarray(clip.frames[0].permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    options = ("--drive", tmp_path / "clip.mp4", "--generator", "warp", "--no-label", "--size", "128")
    run("--photos", tmp_path / "photo.png", *options, "--same-person", "-o", tmp_path / "fake.mp4")
    real, fake = (track_video(tmp_path / name).landmarks.points[:, 30] for name in ("clip.mp4", "fake.mp4"))
    assert (real[:, 0].max() - real[:, 0].min()) > 15, "the head moves"
    assert (2 * fake - real).norm(dim=-1).mean() < 6, "the nose is where it was"
    refused(
        ConfigError,
        "--same-person takes poses as they are",
        *("--photos", tmp_path / "photo.png", *options, "--same-person", "--motion", "head", "-o", tmp_path / "b.mp4"),
    )


def test_the_head_goes_back_into_its_picture(driver: Path, tmp_path: Path) -> None:
    options = ("--drive", driver, "--generator", "warp", "--no-label", "--paste-back")
    run("--photos", HOPPER, *options, "-o", tmp_path / "fake.mp4")
    clip, photo = read_clip(tmp_path / "fake.mp4"), read_image(HOPPER)
    assert clip.size == tuple(photo.shape[1:])
    crop = crop_portrait(photo, "hopper", 256).crop
    below = slice(crop.y + crop.side + 8, None)
    difference = (clip.frames.float() - photo.float()).abs()
    assert difference[:, :, below].mean() < 3, "the picture's own pixels, but for the coding"
    assert difference[:, :, crop.y : crop.y + crop.side].mean() > 3


def add_sound(source: Path, out: Path) -> None:
    """The same video with two seconds of a hum."""
    with av.open(source) as silent, av.open(out, "w") as target:
        video = target.add_stream_from_template(silent.streams.video[0])
        audio = target.add_stream("aac", rate=16000)
        assert isinstance(audio, av.AudioStream)
        audio.codec_context.layout = "mono"
        for packet in silent.demux(video=0):
            if packet.dts is not None:
                packet.stream = video
                target.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.full((1, 32000), 0.1, np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        target.mux(audio.encode(frame))
        target.mux(audio.encode(None))


def test_sound_comes_along_on_request(driver: Path, tmp_path: Path) -> None:
    loud = tmp_path / "loud.mp4"
    add_sound(driver, loud)
    options = ("--generator", "warp", "--size", "64", "-o", tmp_path / "fake.mp4")
    run("--photos", HOPPER, "--drive", loud, *options)
    with av.open(tmp_path / "fake.mp4") as container:
        assert not container.streams.audio
    run("--photos", HOPPER, "--drive", loud, *options, "--sound")
    with av.open(tmp_path / "fake.mp4") as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    refused(MediaError, "has no sound to take over", "--photos", HOPPER, "--drive", driver, *options, "--sound")
    refused(ConfigError, "'nod' is not a video; leave --sound out", HOPPER, "--drive", "nod", *options, "--sound")


# The neural generator.


def test_a_checkpoint_is_named_and_its_talker_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEVAL_CHECKPOINT", "")  # so that it is put back
    checkpoint = write_checkpoint(tmp_path / "tiny.safetensors")
    photo = ("--photos", HOPPER, "--drive", "nod", "--size", "64", "-o", tmp_path / "fake.mp4")
    options = ("--generator", "fewshot_ff", "--checkpoint", checkpoint, "--save-talker", tmp_path / "me.safetensors")
    said = json.loads(run(*photo, *options, "--json").stdout)
    assert said["checkpoint_sha256"] == sha256_of(checkpoint) == read_manifest(tmp_path)[0].checkpoint_sha256
    assert read_clip(tmp_path / "fake.mp4").size == (64, 64)
    talker = load_talker(tmp_path / "me.safetensors", torch.device("cpu"))
    assert talker.side == 64 and talker.origin.generator == "fewshot_ff"
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04]\x94.")
    bad = ("--generator", "fewshot_ff", "--checkpoint", tmp_path / "pickle.safetensors")
    refused(CheckpointError, r"pickle\.safetensors' is a pickle, which could run code", *photo, *bad)
    (tmp_path / "half.safetensors").write_bytes(checkpoint.read_bytes()[:100_000])
    refused(CheckpointError, "is damaged or cut short", *photo, "--checkpoint", tmp_path / "half.safetensors")
    refused(CheckpointError, "is a talker, one person as learnt", *photo, "--checkpoint", tmp_path / "me.safetensors")
    detector = Path(detectors.checkpoint.__file__).parent / "checkpoints" / "grain.safetensors"
    refused(CheckpointError, "is a file of 'theval detector 1', not a generator's", *photo, "--checkpoint", detector)


@pytest.mark.slow
def test_what_is_tuned_is_chosen_and_in_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one photo, fine-tuning changes psi' alone unless somebody chooses."""
    monkeypatch.setenv("THEVAL_CHECKPOINT", "")  # so that it is put back
    checkpoint = write_checkpoint(tmp_path / "tiny.safetensors")
    photo = ("--photos", HOPPER, "--drive", "nod", "--size", "64", "--checkpoint", checkpoint)
    run(*photo, "--generator", "fewshot_ff", "-o", tmp_path / "a.mp4", "--save-talker", tmp_path / "a.safetensors")
    made = run(*photo, "--tune", "heads", "-o", tmp_path / "b.mp4", "--save-talker", tmp_path / "b.safetensors")
    assert "made by 'fewshot_heads' from 1 photo" in made.stdout
    assert read_manifest(tmp_path)[1].generator == "fewshot_heads"
    before, after = (load_talker(tmp_path / f"{name}.safetensors", torch.device("cpu")) for name in "ab")
    assert after.origin.generator == "fewshot_heads" and after.origin.steps > 0
    biases = [dict(talker.network.named_parameters()) for talker in (before, after)]
    changed = {name for name in biases[0] if not torch.equal(biases[0][name], biases[1][name])}
    assert "heads.bias" in changed and "middle.0.norm_1.bias" in changed  # the heads, and psi'
    assert not {name for name in changed if name.startswith("down.") and name.endswith(".bias")}


def test_each_choice_of_what_is_tuned_is_a_generator(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(TUNED) == set(adapt.TUNED)
    for tune, name in TUNED.items():
        generator = plugins.make("generator", name, torch.device("cpu"))
        assert (generator.name, generator.config.tune) == (name, tune)
    # Of a dataset, too: this checkpoint cannot be fine-tuned, and that is told of a generator of that name.
    monkeypatch.setenv("THEVAL_CHECKPOINT", "")  # so that it is put back
    checkpoint = write_checkpoint(tmp_path / "tiny.safetensors", discriminator=False)
    options = ("--data", dataset, "--shots", "1", "--identities", "1", "--checkpoint", checkpoint, "--tune", "adain")
    named = ("--generator", "copy", "--generator", "fewshot", "-o", tmp_path / "fakes", "--json")
    (failure,) = json.loads(run(*options, *named).stdout)["failures"]
    assert failure["labels"] == {"generator": "fewshot_adain", "shots": "1"} and "no discriminator" in failure["reason"]
    refused(
        ConfigError,
        "--tune is for --generator fewshot, not copy, warp; leave one",
        *options,
        *named[:2],
        "--generator",
        "warp",
    )


# Memory.


@dataclass
class CountingTalker:
    """Remembers how many rows it was asked for at a time."""

    asked: list[int]
    short: int = 0  # frames that it forgets

    def animate(self, driving: Landmarks, fps: float) -> Clip:
        self.asked.append(len(driving))
        return Clip("counted", torch.zeros(len(driving) - self.short, 3, 8, 8, dtype=torch.uint8), fps)


def test_a_long_track_is_animated_a_little_at_a_time() -> None:
    driving = Landmarks(torch.zeros(1000, 68, 2), torch.ones(1000, dtype=torch.bool))
    talker = CountingTalker([])
    chunks = animate(talker, driving, 25.0, "counting")
    next(chunks)
    assert talker.asked == [CHUNK], "the next frames are made when they are wanted"
    assert sum(len(frames) for frames in chunks) == 1000 - CHUNK
    assert max(talker.asked) == CHUNK
    with pytest.raises(PluginError, match="'careless' gave 31 frames for 32 driving rows"):
        next(animate(CountingTalker([], short=1), driving, 25.0, "careless"))


def test_chunks_are_the_whole() -> None:
    portrait = crop_portrait(read_image(HOPPER), "hopper", 64)
    driving = read_driver("nod").landmarks
    talker = warp(torch.device("cpu")).adapt(portrait.support, portrait.landmarks)
    in_parts = torch.cat(list(animate(talker, driving, 25.0, "warp")))
    assert torch.equal(in_parts, talker.animate(driving, 25.0).frames)


# Photos as they come.


def save(path: Path, change: Callable[[Image.Image], Image.Image], **options: Any) -> Path:
    with Image.open(HOPPER) as image:
        change(image.convert("RGB")).save(path, **options)
    return path


def test_photos_in_any_mode_are_taken(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees to see it upright

    def clear(image: Image.Image) -> Image.Image:
        image.putalpha(255)
        return image

    plain = crop_portrait(read_image(HOPPER), "plain", 128)
    for photo in (
        save(tmp_path / "print.jpg", lambda image: image.convert("CMYK"), quality=95),
        save(tmp_path / "clear.png", clear),
        save(tmp_path / "phone.jpg", lambda image: image.transpose(Image.Transpose.ROTATE_90), exif=exif, quality=95),
    ):
        made = crop_portrait(read_image(photo), photo.name, 128)
        eyes = (plain.landmarks.points[0, 36] - plain.landmarks.points[0, 45]).norm()
        assert (made.landmarks.points - plain.landmarks.points).norm(dim=-1).mean() < 0.05 * eyes, photo.name
        assert (made.support.frames.float() - plain.support.frames.float()).abs().mean() < 12, photo.name


def test_photos_that_will_not_do_say_why(tmp_path: Path) -> None:
    out = ("--drive", "nod", "--generator", "warp", "-o", tmp_path / "fake.mp4")
    Image.new("RGB", (320, 240), (90, 120, 90)).save(tmp_path / "wall.png")
    refused(NoFaceFound, r"no face in 'wall\.png' \(320x240\); give", tmp_path / "wall.png", *out)
    small = save(tmp_path / "small.png", lambda image: image.resize((152, 178)))  # a face of 64 pixels
    refused(NoFaceFound, r"face in 'small\.png' is \d\d pixels wide, too small .*--size 224", small, *out)

    def twice(image: Image.Image) -> Image.Image:
        both = Image.new("RGB", (2 * image.width, image.height))
        both.paste(image, (0, 0))
        both.paste(image, (image.width, 0))
        return both

    two = save(tmp_path / "two.png", twice)
    refused(NoFaceFound, r"'two\.png' shows 2 faces .*choose one with --face", two, *out)
    refused(NoFaceFound, r"'two\.png' shows 2 faces, and --face asks for number 3", two, *out, "--face", "3")
    profile = COLLINS.with_name("camera.png")
    refused(NoFaceFound, r"face in 'camera\.png' is turned away too far", profile, *out, "--size", "64")
    refused(MediaError, r"cannot read image '.*absent\.png'", tmp_path / "absent.png", *out)
    assert not (tmp_path / "fake.mp4").exists() and not (tmp_path / "manifest.csv").exists()
    run(two, *out, "--face", "2", "--size", "64", "--show-crop", tmp_path / "crop.png")
    assert (tmp_path / "fake.mp4").exists()


def test_the_faces_of_a_photo_can_be_looked_at_first(tmp_path: Path) -> None:
    ran = run(HOPPER, "--show-crop", tmp_path / "crop.png")
    assert "1 face in 'grace_hopper.jpg'" in ran.stdout
    assert (tmp_path / "crop.png").exists()
    with Image.open(HOPPER) as image:
        both = Image.new("RGB", (2 * image.width, image.height))
        both.paste(image, (0, 0))
        both.paste(image, (image.width, 0))
    both.save(tmp_path / "two.png")
    ran = run(tmp_path / "two.png", "--show-crop", tmp_path / "both.png")
    assert "both.png: the faces with their numbers; choose one with --face" in ran.stdout
    assert (tmp_path / "both.png").exists()


def test_drivers_that_will_not_do_say_why(tmp_path: Path) -> None:
    out = ("--generator", "warp", "--size", "64", "-o", tmp_path / "fake.mp4")
    frames = head_clip(3, 30, 128, fps=10)[0].frames.clone()
    frames[12:] = 80
    write_clip(tmp_path / "lost.mp4", Clip("lost", frames, 10.0))
    lost = ("--photos", HOPPER, "--drive", tmp_path / "lost.mp4", *out)
    refused(NoFaceFound, r"'lost\.mp4' loses its face from second 1\.2 to 3\.0; cut", *lost)
    ran = run(*lost, "--hold", "--json")
    assert json.loads(ran.stdout)["driver_frames_without_face"] == 18
    still = read_clip(tmp_path / "fake.mp4").frames.float()
    assert (still[16] - still[29]).abs().mean() < 2  # H.264 still mends a picture that no longer moves
    (tmp_path / "nothing.mp4").touch()
    refused(MediaError, r"cannot open '.*nothing\.mp4'", HOPPER, "--drive", tmp_path / "nothing.mp4", *out)
    with av.open(tmp_path / "short.mp4", "w") as container:
        stream = container.add_stream("h264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = 64, 64
        container.start_encoding()
    refused(MediaError, r"short\.mp4' holds no video; give", HOPPER, "--drive", tmp_path / "short.mp4", *out)
    refused(ConfigError, "no file 'shout' to drive with; give .* nod, smile, talk", HOPPER, "--drive", "shout", *out)
    empty = read_driver("nod")
    nothing = Landmarks(empty.landmarks.points[:0], empty.landmarks.found[:0])
    write_track(tmp_path / "empty.parquet", type(empty)(empty.info, nothing, ""))
    refused(ConfigError, r"empty\.parquet' has no frames", HOPPER, "--drive", tmp_path / "empty.parquet", *out)
    refused(ConfigError, "is one frame, which moves nothing", "--photos", HOPPER, "--drive", HOPPER, *out)


def test_options_that_do_not_fit_say_why(tmp_path: Path) -> None:
    photo = ("--photos", HOPPER, "--drive", "nod", "--generator", "warp")
    refused(ConfigError, "name what to make: --photos and --drive .* or --data")
    refused(ConfigError, "photos need something that moves them", "--photos", HOPPER)
    refused(ConfigError, r"-o '.*fake\.avi' must end in \.mp4", *photo, "-o", tmp_path / "fake.avi")
    refused(ConfigError, "there is no folder", *photo, "-o", tmp_path / "absent" / "fake.mp4")
    refused(
        ConfigError, r"points\.txt' must be a \.npy", *photo, "--save-points", "points.txt", "-o", tmp_path / "a.mp4"
    )
    refused(ConfigError, r"must be a \.png or \.jpg or \.gif", *photo, "-o", tmp_path / "a.mp4", "--preview", "a.webm")
    refused(ConfigError, "--shots means something only with --data", *photo, "--shots", "8", "-o", tmp_path / "a.mp4")
    refused(ConfigError, "--drive means something only with --photos", "--data", "d", *photo[2:], "-o", tmp_path / "f")
    refused(ConfigError, "animated by one --generator", *photo, "--generator", "copy", "-o", tmp_path / "a.mp4")
    refused(
        PluginError,
        "no generator is named 'wrap'; did you mean 'warp'",
        *photo[:4],
        "--generator",
        "wrap",
        "-o",
        "a.mp4",
    )
    refused(ConfigError, "is one of the inputs and would be overwritten", *photo, "--preview", HOPPER, "-o", "a.mp4")
    refused(ConfigError, "there is no checkpoint 'absent.safetensors'", *photo, "--checkpoint", "absent.safetensors")
    refused(
        ConfigError, "--compile is for networks, and .* 'warp' has none", *photo, "--compile", "-o", tmp_path / "a.mp4"
    )
    refused(
        ConfigError, "--compile means something only with --photos", "--data", "d", "--compile", "-o", tmp_path / "f"
    )
    refused(ConfigError, "--certificate and --key go together", *photo, "--key", "a.pem", "-o", tmp_path / "a.mp4")
    refused(ConfigError, "--device cuda:9 cannot be used here", *photo, "--device", "cuda:9", "-o", tmp_path / "a.mp4")
    refused(
        ConfigError,
        "--save-talker keeps what 'fewshot' has learnt",
        *photo,
        "--save-talker",
        "a",
        "-o",
        tmp_path / "a.mp4",
    )
    shutil.copy(HOPPER, tmp_path / "b.mp4")
    refused(ConfigError, "is a file that is there, and none of theval's", *photo, "-o", tmp_path / "b.mp4")
    (tmp_path / "b.mp4").unlink()
    (tmp_path / "manifest.csv").write_text("file,identity\na.mp4,anna\n")
    refused(ConfigError, "not a table of what theval made, and would be overwritten", *photo, "-o", tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


# Content Credentials.


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for signing media with its issuer's, and the key."""
    folder = tmp_path_factory.mktemp("keys")
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, name = (
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"), x509.NameAttribute(NameOID.COMMON_NAME, n)])
        for n in ("root", "signer")
    )
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)

    def build(subject: x509.Name, public: ec.EllipticCurvePublicKey, authority: bool) -> x509.Certificate:
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only",
             "decipher_only"), False,
        )  # fmt: skip
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(authority, None), True)
            .add_extension(
                x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **usage),
                True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
        )
        if not authority:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        return builder.sign(root_key, hashes.SHA256())

    pem = serialization.Encoding.PEM
    certificates = [build(name, key.public_key(), False), build(root_name, root_key.public_key(), True)]
    (folder / "chain.pem").write_bytes(b"".join(certificate.public_bytes(pem) for certificate in certificates))
    private = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    (folder / "other.pem").write_bytes(root_key.private_bytes(pem, private, serialization.NoEncryption()))
    return folder / "chain.pem", folder / "key.pem"


def test_content_credentials_are_signed_with_the_users_certificate(chain: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = chain
    photo = (HOPPER, "--drive", "nod", "--generator", "warp", "--size", "64")
    signed = ("--certificate", certificate, "--key", key)
    run(*photo, *signed, "-o", tmp_path / "fake.mp4", "--preview", tmp_path / "strip.png")
    for name in ("fake.mp4", "strip.png"):
        manifest = read_credentials(tmp_path / name)
        assert manifest is not None
        (actions,) = [item for item in manifest["assertions"] if item["label"].startswith("c2pa.actions")]
        assert actions["data"]["actions"][0]["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
        assert manifest["signature_info"]["issuer"] == "Tests"
    assert read_manifest(tmp_path)[0].sha256 == sha256_of(tmp_path / "fake.mp4")
    assert len(read_clip(tmp_path / "fake.mp4")) == 75
    assert read_metadata(tmp_path / "fake.mp4")["comment"].startswith("Synthetic")
    run(*photo, "-o", tmp_path / "plain.mp4")
    assert read_credentials(tmp_path / "plain.mp4") is None
    refused(ConfigError, r"cannot be put into '\.mkv' files", *photo, *signed, "-o", tmp_path / "fake.mkv")


def test_certificates_that_cannot_sign_say_why(chain: tuple[Path, Path], tmp_path: Path) -> None:
    certificate, key = chain
    photo = (HOPPER, "--drive", "nod", "--generator", "warp", "-o", tmp_path / "fake.mp4")
    refused(
        ConfigError, r"chain\.pem' is not a PEM private key", *photo, "--certificate", certificate, "--key", certificate
    )
    refused(ConfigError, r"key\.pem' is not a PEM certificate", *photo, "--certificate", key, "--key", key)
    refused(ConfigError, r"cannot read '.*absent\.pem'", *photo, "--certificate", tmp_path / "absent.pem", "--key", key)
    other = key.with_name("other.pem")
    refused(
        ConfigError, r"chain\.pem' cannot sign .*fits the key", *photo, "--certificate", certificate, "--key", other
    )


# Fakes of a dataset.


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "dataset"
    make_dataset(path, identities=3, size=48)
    return path


@pytest.fixture(scope="module")
def fakes(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fakes") / "fakes"
    ran = run("--data", dataset, "--shots", "1,8", "--generator", "copy", "--generator", "warp", "-o", out)
    assert "12 fakes of 3 people" in ran.stdout and f"--fakes {out} --reals {out / 'real'}" in ran.stdout
    return out


def test_everyone_gets_fakes_beside_the_real_frames(fakes: Path) -> None:
    files = sorted(path.relative_to(fakes).as_posix() for path in fakes.rglob("*.mkv"))
    people = [f"head000{n}.mkv" for n in range(3)]
    folders = ["copy/1", "copy/8", "real", "warp/1", "warp/8"]
    assert files == [f"{folder}/{name}" for folder in folders for name in people]
    rows = read_manifest(fakes)
    assert [row.file for row in rows] == files
    for row in rows:
        clip = read_clip(fakes / row.file)
        assert (len(clip), clip.fps) == (row.frames, row.fps) == (32, 25.0)
        assert row.sha256 == sha256_of(fakes / row.file)
        synthetic = "comment" in read_metadata(fakes / row.file)
        assert synthetic == (row.label != "real") == bool(row.real)
    fake = next(row for row in rows if row.file == "warp/8/head0001.mkv")
    assert (fake.identity, fake.generator, fake.shots, fake.real) == ("head0001", "warp", "8", "real/head0001.mkv")
    assert fake.split == "test" and fake.driver == "head0001-0.procedural frames 48-79" and fake.source_sha256
    label = read_clip(fakes / fake.file).frames[0, :, -3:, :3]
    assert label.max() > 0, "no visible label: metrics and detectors would see it"


def test_fakes_are_those_that_score_makes(fakes: Path, dataset: Path, tmp_path: Path) -> None:
    from thead_eval.cli.score import command as score

    def measure(*arguments: str | Path) -> dict[tuple[str, str], float]:
        options = ["--metrics", "l1", "--workers", "1", "--json", *map(str, arguments)]
        rows = json.loads(CliRunner().invoke(score, options, catch_exceptions=False).stdout)["measurements"]
        return {(row["labels"]["generator"], row["labels"]["shots"]): row["value"] for row in rows}

    theirs = measure("--fakes", fakes, "--reals", fakes / "real", "--out", tmp_path / "a")
    ours = measure("--data", dataset, "--shots", "1,8", "--out", tmp_path / "b")
    assert theirs == ours and len(ours) == 4


def test_the_manifest_prepares_a_set_for_detectors(fakes: Path) -> None:
    from thead_eval.sources import Ratios, find_sources

    sources = find_sources(fakes, "auto", Ratios(0.7, 0.15, 0.15), fakes / "manifest.csv")
    assert {source.label for source in sources} == {"real", "copy", "warp"}
    assert {source.split for source in sources} == {"test"} and len(sources) == 15


def test_an_interrupted_run_continues(fakes: Path, dataset: Path, tmp_path: Path) -> None:
    options = ("--data", dataset, "--shots", "1,8", "--generator", "copy", "--generator", "warp", "--json")
    first = json.loads(run(*options[:-1], "--identities", "2", "--json", "-o", tmp_path / "fakes").stdout)
    assert (first["fakes"], first["kept"]) == (8, 0)
    lost = tmp_path / "fakes" / "warp" / "8" / "head0000.mkv"
    lost.unlink()
    (tmp_path / "fakes" / "copy" / "1" / ".head0000.mkv.1").write_text("half a clip of a killed process")
    again = json.loads(run(*options, "-o", tmp_path / "fakes").stdout)
    assert (again["fakes"], again["kept"], again["failures"]) == (12, 7, [])
    for row in read_manifest(fakes):
        assert (tmp_path / "fakes" / row.file).read_bytes() == (fakes / row.file).read_bytes()


def test_a_folder_of_other_fakes_is_not_added_to(fakes: Path, dataset: Path, tmp_path: Path) -> None:
    options = ("--data", dataset, "--shots", "1,8", "--generator", "copy")
    refused(ConfigError, "was made with seed = 0, not 5; name another folder", *options, "--seed", "5", "-o", fakes)
    (tmp_path / "notes.txt").write_text("mine")
    refused(ConfigError, "is not empty and holds no fakes of this command", *options, "-o", tmp_path)
    refused(ConfigError, "name the folder for the fakes with -o", *options)
    refused(PluginError, "no generator is named 'wrap'", *options[:4], "--generator", "wrap", "-o", tmp_path / "b")


def test_fakes_of_another_checkpoint_are_not_mixed_in(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEVAL_CHECKPOINT", "")  # so that it is put back
    options = ("--data", dataset, "--shots", "1", "--identities", "1", "--generator", "fewshot_ff")
    first, second = (write_checkpoint(tmp_path / f"{seed}.safetensors", seed=seed) for seed in (0, 1))
    run(*options, "--checkpoint", first, "-o", tmp_path / "fakes")
    (fake,) = [row for row in read_manifest(tmp_path / "fakes") if row.label != "real"]
    assert fake.checkpoint_sha256 == sha256_of(first)
    refused(
        ConfigError,
        "was made with checkpoint of fewshot_ff = ",
        *options,
        "--checkpoint",
        second,
        "-o",
        tmp_path / "fakes",
    )


@dataclass(frozen=True)
class Fragile:
    """Fails at one number of shots."""

    name: str = "fragile"

    def adapt(self, support: Clip, landmarks: Landmarks) -> CountingTalker:
        if len(support) == 8:
            raise RuntimeError("out of ideas")
        return CountingTalker([])


def test_a_generator_that_fails_is_counted(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BUILT_IN["generator"], "fragile", "tests.test_generate:fragile")
    options = ("--data", dataset, "--generator", "fragile", "-o", tmp_path / "fakes", "--json")
    said = json.loads(run(*options, "--shots", "1,8").stdout)
    assert said["fakes"] == 3 and len(said["failures"]) == 3
    assert said["failures"][0]["reason"] == "RuntimeError: out of ideas"
    assert json.loads((tmp_path / "fakes" / "fakes.json").read_text())["failures"] == said["failures"]
    nothing = (*options[:4], "--shots", "8", "-o", tmp_path / "none")
    refused(RunError, "no fake could be made; the first: head0000: RuntimeError: out of ideas", *nothing)


def fragile(device: torch.device) -> Fragile:
    return Fragile()


def test_tables_of_fakes_are_read_by_anything(fakes: Path) -> None:
    with (fakes / "manifest.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {"file", "identity", "label", "split", "generator", "checkpoint_sha256", "shots", "command"} <= set(rows[0])
