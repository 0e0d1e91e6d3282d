"""A person in photos, moved by a driving track: from files to a video, a few frames in memory at a time."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2.functional as tvf
from torch import Tensor

from thead_eval import plugins
from thead_eval.credentials import SIGNED, SigningKey, sign
from thead_eval.errors import ConfigError, NoFaceFound, PluginError, WeightsMissing
from thead_eval.manifest import ManifestRow, add_rows, checkpoint_of, read_manifest, typed_command
from thead_eval.marking import label_frames
from thead_eval.marks import read_marks
from thead_eval.media import open_writer, read_image, write_image, write_images
from thead_eval.pasting import Place, find_place, paste
from thead_eval.portraits import Portrait, choose_face, crop_face, draw_faces, find_faces
from thead_eval.retarget import Motion, absolute_motion, find_neutral, relative_motion
from thead_eval.tracks import DrivingTrack, bridge_gaps, read_driver, take_out_jitter
from thead_eval.types import Clip, Compiling, FeatureNetwork, FewShotGenerator, Landmarks, Talker, Telling
from thead_eval.weights import sha256_of

CHUNK = 32  # driving rows animated at a time: a bound on memory
STRIP = 8  # frames of a contact strip
STRANGERS = 0.65  # apart by dlib's faces: of 39 pairs of photos of one person none, of 1,731 of two people 93 of 100
GIF_FPS, GIF_FRAMES, GIF_SIDE = 10, 100, 256  # at most, of a preview

Progress = Callable[[str, int, int], None]  # (what is being done, done, of how many)


@dataclass(frozen=True)
class PuppetConfig:
    """What moves, how, and what is written."""

    photos: tuple[Path, ...]  # of one person; the first is the one that is pasted back
    drive: str  # a video, a track file, or a named track
    out: Path
    generator: str
    size: int = 256  # pixels a side of the head crops
    face: int | None = None  # in photos of several, from 1 and from left to right
    motion: Motion = "all"
    same_person: bool = False  # the driver is who the photos show: poses are taken as they are
    smooth: bool = True  # take out the trembling of the driver's landmarks
    hold: bool = False  # keep the pose where the driver loses its face for long
    paste_back: bool = False
    label: bool = True
    sound: bool = False
    preview: Path | None = None  # .gif, or .png and .jpg for a strip of frames
    show_crop: Path | None = None
    save_points: Path | None = None  # .npy of what drives the talker
    signing_key: SigningKey | None = None
    device: str = "cpu"
    compiled: bool = False  # the talker by torch.compile


@dataclass(frozen=True)
class Made:
    """What was written."""

    file: str
    frames: int
    fps: float
    height: int
    width: int
    generator: str
    checkpoint_sha256: str
    shots: int
    driver: str
    driver_frames_without_face: int
    adapt_seconds: float
    animate_seconds: float  # with encoding
    sha256: str
    manifest: str


def animate_photos(
    config: PuppetConfig,
    progress: Progress = lambda *_: None,
    keep: Callable[[Talker], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Made:
    """Write a video of the person in the photos, moved by the driver, with its row in the folder's manifest; a preview
    has one too.

    Args:
        config: What to do.
        progress: Is told how far it is.
        keep: Is given the talker before it is animated.
        warn: Is told of photos that seem to show somebody else.

    Raises:
        ConfigError, MediaError, NoFaceFound, PluginError: an option, a file, a face or the generator will not do.
    """
    _check(config)
    generator: FewShotGenerator = plugins.make("generator", config.generator, torch.device(config.device))
    checkpoint_sha256 = checkpoint_of(generator)  # one that cannot be read is told before a video is searched
    if config.compiled:
        if not isinstance(generator, Compiling):
            raise ConfigError(f"--compile is for networks, and generator '{config.generator}' has none; leave it out")
        generator = generator.compiling()
    if isinstance(generator, Telling):
        generator = generator.telling(partial(progress, "adapting"))
    portraits = read_portraits(config.photos, config.size, config.face, config.show_crop)
    for name in find_strangers(portraits):
        warn(f"'{name}' seems to show somebody else than '{portraits[0].name}'; the video will be of a mixture")
    track = read_driver(config.drive, progress=progress)
    support, landmarks = join_support(portraits)
    driving = drive(track, landmarks, config)
    if config.save_points:
        np.save(config.save_points, driving.points.numpy())

    progress("adapting", 0, 1)
    begin = time.monotonic()
    talker = generator.adapt(support, landmarks)
    adapted = time.monotonic()
    progress("adapting", 1, 1)
    keep(talker)
    sound = Path(config.drive) if config.sound else None
    preview = Preview(config.preview, len(driving), track.info.fps)
    frames = compose(animate(talker, driving, track.info.fps, generator.name), portraits[0], config)
    first = next(frames)
    size = (first.shape[1], first.shape[2])
    with open_writer(config.out, size, track.info.fps, synthetic=generator.name, sound=sound) as write:
        frame: Tensor | None = first
        for number in range(len(driving)):
            assert frame is not None
            write(frame[None])
            preview.see(number, frame)
            progress("animating", number + 1, len(driving))
            frame = next(frames, None)
    animated = time.monotonic()
    preview.write(generator.name)
    for path in (config.out, config.preview):
        if path and config.signing_key:
            sign(path, config.signing_key, generator.name)
    row = ManifestRow(
        file=config.out.name,
        identity=config.photos[0].stem,
        label=generator.name,
        sha256=sha256_of(config.out),
        frames=len(driving),
        fps=track.info.fps,
        generator=generator.name,
        checkpoint_sha256=checkpoint_sha256,
        shots=str(len(support)),
        sources=";".join(photo.name for photo in config.photos),
        source_sha256=";".join(map(sha256_of, config.photos)),
        driver=track.info.name,
        driver_sha256=track.sha256,
        command=typed_command(),
    )
    add_rows(config.out.parent, [row])
    if config.preview:
        shown = replace(
            row, file=config.preview.name, sha256=sha256_of(config.preview), frames=preview.shown, fps=preview.fps
        )
        add_rows(config.preview.parent, [shown])
    return Made(
        file=str(config.out),
        frames=row.frames,
        fps=row.fps,
        height=size[0],
        width=size[1],
        generator=row.generator,
        checkpoint_sha256=row.checkpoint_sha256,
        shots=len(support),
        driver=row.driver,
        driver_frames_without_face=int((~track.landmarks.found).sum()),
        adapt_seconds=round(adapted - begin, 3),
        animate_seconds=round(animated - adapted, 3),
        sha256=row.sha256,
        manifest=str(config.out.parent / "manifest.csv"),
    )


def _check(config: PuppetConfig) -> None:
    """What can be known before any work."""
    if config.same_person and config.motion != "all":
        raise ConfigError(
            "--same-person takes poses as they are, so that --motion has no meaning; leave one of them out"
        )
    if config.out.suffix not in (".mp4", ".mov", ".mkv"):
        raise ConfigError(f"-o '{config.out}' must end in .mp4, .mov or .mkv")
    inputs = {path.resolve() for path in (*config.photos, Path(config.drive))}
    for path in (config.out, config.preview, config.show_crop, config.save_points):
        if path and path.resolve() in inputs:
            raise ConfigError(f"'{path}' is one of the inputs and would be overwritten; name another file")
        if path and not path.parent.is_dir():
            raise ConfigError(f"there is no folder '{path.parent}' for '{path.name}'; make it, or name another")
    if config.out.is_file() and not any(mark.kind == "theval" for mark in read_marks(config.out)):
        raise ConfigError(f"'{config.out}' is a file that is there, and none of theval's; name another with -o")
    for path in (config.preview, config.show_crop):
        if path and path.suffix.lower() not in ((".gif",) if path is config.preview else ()) + (
            ".png",
            ".jpg",
            ".jpeg",
        ):
            raise ConfigError(f"'{path}' must be a .png or .jpg" + (" or .gif" if path is config.preview else ""))
    if config.save_points and config.save_points.suffix != ".npy":
        raise ConfigError(f"'{config.save_points}' must be a .npy")
    if config.signing_key and config.out.suffix not in SIGNED:
        raise ConfigError(f"Content Credentials cannot be put into '{config.out.suffix}' files; name an .mp4 with -o")
    if config.sound and (not Path(config.drive).is_file() or config.drive.endswith(".parquet")):
        raise ConfigError(f"--sound takes the driver's, and '{config.drive}' is not a video; leave --sound out")
    for path in (config.out, config.preview):
        if path:
            read_manifest(path.parent)


def read_portraits(
    photos: tuple[Path, ...], size: int, number: int | None = None, show_crop: Path | None = None
) -> list[Portrait]:
    """A portrait from each photo; and as a picture what was found in the first that is of interest.

    Args:
        photos: Of one person.
        size: Pixels a side of the crops.
        number: Of the face in photos of several.
        show_crop: Where to write that picture, also where no face can be chosen.

    Raises:
        MediaError: a photo cannot be read.
        NoFaceFound: it shows no face that will do.
    """
    portraits: list[Portrait] = []
    for path in photos:
        photo = read_image(path)
        faces = find_faces(photo)
        shown = show_crop if not portraits else None
        try:
            chosen = choose_face(photo, path.name, faces, number if len(faces) > 1 or len(photos) == 1 else None)
            portrait = crop_face(photo, path.name, size, faces, chosen)
        except NoFaceFound:
            if show_crop:
                write_image(show_crop, draw_faces(faces, photo, None))
            raise
        if shown:
            write_image(shown, draw_faces(faces, photo, portrait))
        portraits.append(portrait)
    return portraits


def find_strangers(portraits: Sequence[Portrait]) -> list[str]:
    """The photos whose face is far from the first one's; none where dlib's recogniser is not installed."""
    if len(portraits) < 2:
        return []
    network: FeatureNetwork = plugins.load("features", "dlib_resnet")
    try:
        recogniser = network.load(torch.device("cpu"))
    except WeightsMissing:
        return []
    first, *others = (recogniser(portrait.photo[None], portrait.face.points[None]) for portrait in portraits)
    apart = [float(torch.linalg.vector_norm(other - first)) for other in others]
    return [portrait.name for portrait, distance in zip(portraits[1:], apart, strict=True) if distance > STRANGERS]


def join_support(portraits: list[Portrait]) -> tuple[Clip, Landmarks]:
    """All portraits' crops as one clip."""
    frames = torch.cat([portrait.support.frames for portrait in portraits])
    points = torch.cat([portrait.landmarks.points for portrait in portraits])
    return Clip(portraits[0].name, frames, 25.0), Landmarks(points, torch.ones(len(points), dtype=torch.bool))


def drive(track: DrivingTrack, support: Landmarks, config: PuppetConfig) -> Landmarks:
    """The track as points in the support frames' pixels.

    Another person's movement is transferred to the support frame that is most at rest; the same person's poses are
    taken as they are.

    Raises:
        NoFaceFound: the track has no face, or loses it for too long.
    """
    bridged = bridge_gaps(track, hold=config.hold)
    if config.smooth:
        bridged = take_out_jitter(bridged, track.info.fps)
    if config.same_person:
        return absolute_motion(bridged, support)
    source = support.points[find_neutral(support)]
    return relative_motion(bridged, source, motion=config.motion)


def animate(talker: Talker, driving: Landmarks, fps: float, name: str) -> Iterator[Tensor]:
    """Frames [T, 3, S, S], a few rows at a time.

    Raises:
        PluginError: the generator gave another number of frames than it was asked.
    """
    for start in range(0, len(driving), CHUNK):
        rows = range(start, min(start + CHUNK, len(driving)))
        clip = talker.animate(driving.take(rows), fps)
        if len(clip) != len(rows):
            raise PluginError(f"generator '{name}' gave {len(clip)} frames for {len(rows)} driving rows; correct it")
        yield clip.frames


def compose(chunks: Iterator[Tensor], portrait: Portrait, config: PuppetConfig) -> Iterator[Tensor]:
    """Each frame [3, H, W] as it is shown: in its picture, with its label, if so wished."""
    place: Place | None = None
    for frames in chunks:
        for frame in frames:
            shown = frame
            if config.paste_back:
                place = place or find_place(portrait, frame)
                shown = paste(place, frame)
            yield label_frames(shown[None])[0] if config.label else shown


class Preview:
    """Some of a video's frames, as they come: evenly spaced in a strip, or small ones in a GIF."""

    def __init__(self, path: Path | None, total: int, fps: float) -> None:
        self.path = path
        self.frames: list[Tensor] = []
        if path is not None and path.suffix.lower() == ".gif":
            self.step = max(1, round(fps / GIF_FPS), -(-total // GIF_FRAMES))
            self.seconds = self.step / fps
            self.wanted = set(range(0, total, self.step))
        else:
            self.seconds = 0.0
            self.wanted = {round(n * (total - 1) / (STRIP - 1)) for n in range(STRIP)} if path else set()

    @property
    def fps(self) -> float:
        """Of the file; 0 of a strip, which is one picture."""
        return round(1 / self.seconds, 3) if self.seconds else 0.0

    @property
    def shown(self) -> int:
        """Frames of the file."""
        return len(self.frames) if self.seconds else 1

    def see(self, number: int, frame: Tensor) -> None:
        """The frame of that number."""
        if number in self.wanted:
            height, width = frame.shape[1:]
            scale = min(1.0, GIF_SIDE / max(height, width))
            self.frames.append(tvf.resize(frame, [round(height * scale), round(width * scale)], antialias=True))

    def write(self, generator: str) -> None:
        """Write the file, marked as synthetic."""
        if self.path is None:
            return
        if self.path.suffix.lower() == ".gif":
            write_images(self.path, torch.stack(self.frames), seconds=self.seconds, synthetic=generator)
        else:
            write_image(self.path, torch.cat(self.frames, 2), synthetic=generator)
