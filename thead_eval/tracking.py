"""Faces followed through a video: detection on some frames, landmarks on all, and a fixed crop around each head.

Between detections a face's box comes from its landmarks in the frame before. Where it cannot be told whose face is
whose (two meet, or none is found where one was), tracks end, and new ones begin: a track never changes person
without a word.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import percentile_filter

from thead_eval.backends import Boxes, PictureDetector, PictureLandmarker, Points, face_box, overlap
from thead_eval.errors import MediaError
from thead_eval.pictures import Picture, VideoInfo, decode_frames, shown_at, to_rgb

# Mean difference from one frame to the next, in levels of a small RGB picture. Within 195 of 196 clips it stays
# below, and 0.06 % of 5000 cuts from one clip to another do so too. A slow dissolve is not seen.
CUT = 26.0
STILL = 0.85  # a face that overlaps itself a frame earlier by less than this gets its landmarks a second time
JUMP = 0.6  # a face that overlaps itself a frame earlier by less than this is looked for at once
SAME = 0.4  # a detection that overlaps a track by this much confirms it
DRIFT = 0.6  # below this the landmarks are taken again, from the detection's box
MEET = 0.15  # two faces that overlap by more than this cannot be told apart
APART = 0.1  # a face that overlaps another by less than this may begin a track
MISSES = 2  # detections in a row that may fail to confirm a track
SEARCHED = 1280  # pixels of the longer side of the pictures in which faces are searched; larger ones are shrunk
# A frame that differs from the one before by less than this part of what frames around it do shows the same again: so
# do all that a conversion doubled, .75 of them after H.264 at CRF 18, .47 after 23, and .03 of frames as they come, of
# which some were doubled too.
REPEATED = 0.2
AROUND = 13  # frames to either side, itself among them, about half a second
REACH = 2.2  # sides of its own box within which a face must stay for one crop to hold it


@dataclass(frozen=True)
class Track:
    """One face in consecutive frames of one shot."""

    first_frame: int
    points: Points  # [T, 68, 2], pixels of the pictures that were searched

    def __len__(self) -> int:
        return len(self.points)

    def times(self, x: float, y: float) -> "Track":
        """The same in pictures of another size. Pixel 0's centre is 0, so that its left edge is -0.5."""
        return Track(self.first_frame, (self.points + 0.5) * np.array([x, y], np.float32) - 0.5)


class Search(NamedTuple):
    """What was found in a video."""

    frames: int
    tracks: list[Track]  # by first frame, then from left to right


class FaceSearch(NamedTuple):
    """What was found in a video file."""

    frames: int
    width: int  # upright
    height: int
    tracks: list[Track]  # in pixels of the pictures that were searched
    scale: tuple[float, float]  # of the video's pixels to theirs, for `Track.times`
    seconds: NDArray[np.float64]  # [frames + 1], see `pictures.shown_at`
    repeats: NDArray[np.bool_]  # [frames], see `find_repeats`


class Crop(NamedTuple):
    """A square in pixels of the source: whole numbers, so that a crop of the right size copies pixels."""

    x: int
    y: int
    side: int


@dataclass(eq=False)  # two are the same only if they are one
class _Open:
    """A track that may go on."""

    first_frame: int
    points: list[NDArray[np.float32]]  # [68, 2] each
    box: NDArray[np.float32]  # [4], of the last frame
    scores: list[float]  # of the detections that confirmed it
    confirmed: int  # frames up to and including the last of them
    misses: int = 0


def search_video(
    path: Path,
    info: VideoInfo,
    detector: PictureDetector,
    landmarker: PictureLandmarker,
    confident: float,
    every: int,
    *,
    threads: int = 0,
    searched: int = SEARCHED,
    stride: int = 1,
    see: Callable[[Picture], None] = lambda picture: None,
) -> FaceSearch:
    """Follow all faces through a video file.

    Args:
        path: The video.
        info: What its header states.
        detector: See `track_faces`, as for the next three.
        landmarker: Takes its boxes.
        confident: The score from which a box alone begins a track.
        every: Detect on every that many frames of a shot.
        threads: Of the decoder; 0 = one a core.
        searched: Pixels of the longer side of the pictures in which faces are searched.
        stride: See `track_faces`.
        see: Is given each picture that is searched, upright.

    Raises:
        MediaError: the file is damaged, or holds no frame.
    """
    shrink = max(1.0, max(info.width, info.height) / searched)
    small = round(info.width / shrink), round(info.height / shrink)
    width, height = small
    times: list[float | None] = []
    moved: list[float] = []

    def pictures() -> Iterator[Picture]:
        nonlocal width, height
        reformatter = VideoReformatter()
        for frame in decode_frames(path, threads):
            picture = np.ascontiguousarray(to_rgb(frame, *small, reformatter))
            height, width = picture.shape[:2]
            times.append(frame.time)
            see(picture)
            yield picture

    frames, tracks = track_faces(pictures(), detector, landmarker, confident, every, stride, moved.append)
    if not frames:
        raise MediaError(f"'{path}' holds no frames; download or export it again")
    upright = (info.width, info.height) if (width, height) == small else (info.height, info.width)
    scale = upright[0] / width, upright[1] / height
    return FaceSearch(frames, *upright, tracks, scale, shown_at(times, info.fps), find_repeats(np.array(moved)))


def find_repeats(moved: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[T] whether a frame shows once more what the one before it did, as a conversion to a higher frame rate makes it.

    Both the frames before and those after must move more, as beside a burst of motion everybody seems to stand still.
    Where each frame is shown more than three times, too few are left to tell by.

    Args:
        moved: [T] mean difference to the frame before, in levels; of the first it does not count. At least one.
    """
    levels = moved[1:]
    repeats = np.zeros(len(moved), np.bool_)
    if len(levels):
        before, after = (
            percentile_filter(levels, 75, size=AROUND, mode="mirror", origin=side * (AROUND // 2)) for side in (1, -1)
        )
        repeats[1:] = levels < REPEATED * np.minimum(before, after)
    return repeats


def track_faces(
    pictures: Iterable[Picture],
    detector: PictureDetector,
    landmarker: PictureLandmarker,
    confident: float,
    every: int,
    stride: int = 1,
    tell: Callable[[float], None] = lambda moved: None,
) -> Search:
    """Follow all faces through [H, W, 3] RGB pictures of one size, which are held one at a time.

    Args:
        pictures: Consecutive frames; may contain cuts.
        detector: Gives doubtful boxes too.
        landmarker: Takes its boxes.
        confident: The score from which a box alone begins a track; doubtful ones only confirm.
        every: Detect on every that many frames of a shot.
        stride: Take landmarks on every that many frames of a shot, of which `every` is a multiple; those between have
            the points of the one before.
        tell: Is told of each picture how far it is from the one before, in levels; infinitely, of the first.
    """
    closed: list[Track] = []
    faces: list[_Open] = []
    before: NDArray[np.float32] | None = None  # the last frame's
    shot = 0  # its first frame
    frames = 0
    for number, picture in enumerate(pictures):
        frames = number + 1
        thumb = _thumb(picture)
        moved = _difference(thumb, before)
        tell(moved)
        if moved > CUT:
            closed += _close(faces)
            faces, shot = [], number
        before = thumb
        since = number - shot
        if since % stride:
            for face in faces:
                face.points.append(face.points[-1])
            continue

        jumped = _follow(faces, picture, landmarker)
        met = _meeting(faces)
        closed += _close([face for face in faces if face in met], drop_last=True)
        faces = [face for face in faces if face not in met]

        eager = not faces and since < every  # a shot's first frames are worth a closer look
        if since % every == 0 or jumped or met or eager:
            boxes = detector([picture])[0]
            lost, boxes = _confirm(faces, boxes, picture, landmarker)
            closed += _close(lost)
            faces = [face for face in faces if face not in lost]
            faces += _begin(faces, boxes[boxes[:, 4] >= confident], picture, landmarker, number)
    closed += _close(faces)
    closed.sort(key=lambda track: (track.first_frame, float(track.points[0, :, 0].mean())))
    return Search(frames, closed)


def _thumb(picture: Picture) -> NDArray[np.float32]:
    """About 32 x 32, each pixel the mean of four spread over its place: ten times faster than the mean of all."""
    height, width = picture.shape[:2]
    points = picture[:: max(height // 64, 1), :: max(width // 64, 1)].astype(np.float32)
    points = points[: len(points) // 2 * 2, : points.shape[1] // 2 * 2]
    return (points[::2, ::2] + points[1::2, ::2] + points[::2, 1::2] + points[1::2, 1::2]) * np.float32(0.25)


def _difference(thumb: NDArray[np.float32], other: NDArray[np.float32] | None) -> float:
    """Mean difference in levels; infinite where there is no other."""
    return math.inf if other is None else float(np.abs(thumb - other).mean())


def _follow(faces: list[_Open], picture: Picture, landmarker: PictureLandmarker) -> bool:
    """Add this frame's landmarks to each face; True where one is not where it was."""
    if not faces:
        return False
    before = np.stack([face.box for face in faces])
    points = landmarker([picture] * len(faces), before)
    after = face_box(points)
    moved = overlap(before, after).diagonal() < STILL
    if moved.any():  # from where the face was, the landmarks go only part of the way
        points[moved] = landmarker([picture] * int(moved.sum()), after[moved])
        after = face_box(points)
    for face, own, box in zip(faces, points, after, strict=True):
        face.points.append(own)
        face.box = box
    return bool((overlap(before, after).diagonal() < JUMP).any())


def _meeting(faces: list[_Open]) -> list[_Open]:
    """The faces that overlap another."""
    met = []
    for a, b in combinations(faces, 2):
        if overlap(a.box[None], b.box[None])[0, 0] > MEET:
            met += [a, b]
    return met


def _confirm(
    faces: list[_Open], boxes: Boxes, picture: Picture, landmarker: PictureLandmarker
) -> tuple[list[_Open], Boxes]:
    """Match detections with faces, best overlap first: the faces that are lost, and the boxes that are left."""
    left = np.ones(len(boxes), np.bool_)
    unmatched = list(faces)
    if faces and len(boxes):
        shared = overlap(np.stack([face.box for face in faces]), boxes)  # [faces, boxes]
        while float(shared.max()) >= SAME:
            row, column = divmod(int(shared.argmax()), len(boxes))
            face, box = faces[row], boxes[column]
            if float(shared[row, column]) < DRIFT:
                face.points[-1] = landmarker([picture], box[None, :4])[0]
                face.box = face_box(face.points[-1][None])[0]
            face.scores.append(float(box[4]))
            face.confirmed = len(face.points)
            face.misses = 0
            unmatched.remove(face)
            left[column] = False
            shared[row], shared[:, column] = 0, 0
    for face in unmatched:
        face.misses += 1
    return [face for face in unmatched if face.misses > MISSES], boxes[left]


def _begin(
    faces: list[_Open], boxes: Boxes, picture: Picture, landmarker: PictureLandmarker, number: int
) -> list[_Open]:
    """A track for each box that lies apart from all faces and from the other boxes."""
    others = np.concatenate([boxes[:, :4], *(face.box[None] for face in faces)])
    crowded = overlap(boxes[:, :4], others) >= APART  # [boxes, boxes + faces]; each overlaps itself
    new = []
    for box in boxes[crowded.sum(axis=1) == 1]:
        points = landmarker([picture], box[None, :4])
        new.append(_Open(number, [points[0]], face_box(points)[0], [float(box[4])], confirmed=1))
    return new


def _close(faces: list[_Open], *, drop_last: bool = False) -> list[Track]:
    """The tracks, without the frames after the last detection that confirmed them where a later one did not."""
    tracks = []
    for face in faces:
        length = len(face.points) - drop_last if face.misses == 0 else min(face.confirmed, len(face.points) - drop_last)
        if length:
            tracks.append(Track(face.first_frame, np.stack(face.points[:length])))
    return tracks


# Crops.

HEAD_LEFT, HEAD_TOP, HEAD_RIGHT, HEAD_BOTTOM = 0.30, 0.55, 0.30, 0.20  # the head around its face box, in boxes
FRAMING = 2.05  # side of a crop in face boxes: the usual framing of talking-head sets
FACE_HEIGHT = 0.53  # of the face box's centre in the crop
FULL = 0.75  # a square frame of which the crop would take this much is a head crop already


def split_by_reach(track: Track) -> list[Track]:
    """The track in pieces in each of which the head stays within what one crop can hold."""
    boxes = face_box(track.points)  # [T, 4]
    pieces = []
    start = 0
    while start < len(track):
        low = np.minimum.accumulate(boxes[start:, :2])
        high = np.maximum.accumulate(boxes[start:, 2:])
        side = np.maximum.accumulate(boxes[start:, 2] - boxes[start:, 0])  # [T - start]
        beyond = np.flatnonzero((high - low).max(axis=1) > REACH * side)
        length = int(beyond[0]) if len(beyond) else len(track) - start
        pieces.append(Track(track.first_frame + start, track.points[start : start + length]))
        start += length
    return pieces


def head_crop(track: Track, width: int, height: int) -> Crop:
    """A square that holds the head in all frames of the track, in a source of this size.

    It leaves the frame only where the landmarks themselves would not fit otherwise. A square source that it would
    nearly fill is taken whole.
    """
    boxes = face_box(track.points)  # [T, 4]
    side = float(np.median(boxes[:, 2] - boxes[:, 0]))
    margin = side * np.array([-HEAD_LEFT, -HEAD_TOP, HEAD_RIGHT, HEAD_BOTTOM])
    heads = boxes + margin
    low = np.quantile(heads[:, :2], 0.01, axis=0)  # [2]; a few wild frames do not count
    high = np.quantile(heads[:, 2:], 0.99, axis=0)
    wanted = max(FRAMING * side, float((high - low).max()))

    points = track.points.reshape(-1, 2).clip(0, [width, height])  # [T * 68, 2]; beyond the frame they are guesses
    extent = float((points.max(axis=0) - points.min(axis=0)).max()) + 0.2 * side
    crop = round(min(wanted, max(min(width, height), extent)))
    if width == height and crop >= FULL * width:
        return Crop(0, 0, width)
    x = float(low[0] + high[0]) / 2 - crop / 2
    y = float(np.median(boxes[:, 1]) + np.median(boxes[:, 3])) / 2 - FACE_HEIGHT * crop
    y = min(y, float(low[1])) if float(high[1] - low[1]) <= crop else float(low[1] + high[1]) / 2 - crop / 2
    return Crop(_into_frame(x, crop, width), _into_frame(y, crop, height), crop)


def _into_frame(start: float, length: int, limit: int) -> int:
    """Where an interval of this length begins once moved into the frame; in its middle where it is longer."""
    if length >= limit:
        return (limit - length) // 2
    return min(max(round(start), 0), limit - length)


def cut_out(picture: Picture, crop: Crop, width: int, height: int, size: int) -> Picture:
    """[size, size, 3]: the crop of a source of this size, area-averaged or bilinear; beyond it its border is repeated.

    The picture may be a smaller one of the source. A crop of the right size copies its pixels.
    """
    across, down = picture.shape[1] / width, picture.shape[0] / height
    x0, y0, x1, y1 = crop.x * across, crop.y * down, (crop.x + crop.side) * across, (crop.y + crop.side) * down
    left, top, right, bottom = math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)
    inside = picture[max(top, 0) : bottom, max(left, 0) : right]
    beyond = (
        (max(-top, 0), max(bottom - picture.shape[0], 0)),
        (max(-left, 0), max(right - picture.shape[1], 0)),
        (0, 0),
    )
    around = Image.fromarray(np.pad(inside, beyond, mode="edge") if np.any(beyond) else inside)
    head = around.resize((size, size), Image.Resampling.BILINEAR, box=(x0 - left, y0 - top, x1 - left, y1 - top))
    return np.asarray(head)


def points_in(crop: Crop, points: Points, size: int) -> NDArray[np.float32]:
    """Points [..., 68, 2] in pixels of the crop at this size, whose first pixel's centre is 0."""
    corner = np.array([crop.x, crop.y], np.float32)
    return (points + np.float32(0.5) - corner) * np.float32(size / crop.side) - np.float32(0.5)
