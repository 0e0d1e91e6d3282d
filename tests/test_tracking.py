"""Faces followed through pictures: cuts, crossings, losses, and the crop around a head."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from tests.test_faces import portraits
from thead_eval.backends import (
    CONFIDENT,
    Boxes,
    PictureLandmarker,
    Points,
    face_box,
    load_picture_detector,
    load_picture_landmarker,
)
from thead_eval.pictures import Picture
from thead_eval.tracking import Crop, Search, Track, find_repeats, head_crop, split_by_reach, track_faces

Pictures = Iterator[Picture]
Follow = Callable[[Pictures], Search]
EVERY = 6


@pytest.fixture(scope="module")
def landmarker() -> PictureLandmarker:
    return load_picture_landmarker("dlib")


@pytest.fixture(scope="module")
def follow(landmarker: PictureLandmarker) -> Follow:
    detector = load_picture_detector("dlib", doubtful=True)
    return lambda pictures: track_faces(pictures, detector, landmarker, CONFIDENT["dlib"], EVERY)


def heads() -> list[Picture]:
    """Collins and Hopper."""
    return [portrait.permute(1, 2, 0).contiguous().numpy() for portrait in portraits()]


def points_alone(landmarker: PictureLandmarker) -> Points:
    """[2, 68, 2]: their landmarks by themselves."""
    boxes = [boxes[0, :4] for boxes in load_picture_detector("dlib")(heads())]
    return landmarker(heads(), np.stack(boxes))


def paste(canvas: Picture, portrait: Picture, x: int, y: int) -> None:
    """The portrait on the canvas, its left upper corner at x, y; parts outside are left out."""
    height, width = canvas.shape[:2]
    left, top = max(-x, 0), max(-y, 0)
    right, bottom = min(width - x, portrait.shape[1]), min(height - y, portrait.shape[0])
    if right > left and bottom > top:
        canvas[y + top : y + bottom, x + left : x + right] = portrait[top:bottom, left:right]


def paste_head(canvas: Picture, portrait: Picture, x: int) -> None:
    """The head alone, an ellipse, so that one behind it shows beside it."""
    before = canvas[:, x : x + 256].copy()
    paste(canvas, portrait, x, 0)
    rows, columns = np.mgrid[:256, :256]
    outside = ((columns - 128) / 75) ** 2 + ((rows - 135) / 115) ** 2 > 1
    canvas[:, x : x + 256][outside] = before[outside]


def walk(portrait: Picture, places: list[tuple[int, int]], width: int, height: int) -> Pictures:
    for x, y in places:
        canvas = np.full((height, width, 3), 110, np.uint8)
        paste(canvas, portrait, x, y)
        yield canvas


def test_a_moving_face_is_one_track_with_landmarks_on_every_frame(
    follow: Follow, landmarker: PictureLandmarker
) -> None:
    collins, _ = heads()
    places = [(20 + 4 * n, 30 + round(10 * np.sin(n / 3))) for n in range(30)]
    search = follow(walk(collins, places, 420, 320))
    (track,) = search.tracks
    assert search.frames == 30 and track.first_frame == 0 and len(track) == 30
    alone = points_alone(landmarker)[0]
    eyes = np.linalg.norm(alone[36] - alone[45])
    for points, place in zip(track.points, places, strict=True):
        assert np.linalg.norm(points - alone - place, axis=1).mean() < 0.03 * eyes


def test_a_cut_begins_a_new_track(follow: Follow) -> None:
    """Even where the next shot has a face in the same place."""
    collins, hopper = heads()
    first, second = walk(collins, [(0, 0)] * 10, 256, 256), walk(hopper, [(0, 0)] * 14, 256, 256)
    search = follow(picture for shot in (first, second) for picture in shot)
    assert [(track.first_frame, len(track)) for track in search.tracks] == [(0, 10), (10, 14)]


def test_two_people_side_by_side_are_two_tracks(follow: Follow) -> None:
    collins, hopper = heads()

    def both() -> Pictures:
        for n in range(14):
            canvas = np.full((256, 560, 3), 110, np.uint8)
            paste(canvas, collins, n, 0)
            paste(canvas, hopper, 300 - n, 0)
            yield canvas

    left, right = follow(both()).tracks
    assert len(left) == len(right) == 14
    assert left.points[..., 0].max() < 280 < right.points[..., 0].min()


@pytest.mark.parametrize("in_front", [0, 1])
def test_two_people_who_cross_never_share_a_track(follow: Follow, landmarker: PictureLandmarker, in_front: int) -> None:
    """One passes in front of the other; where it cannot be told who is who, tracks have ended."""
    people = heads()
    places = [(8 * n, 330 - 8 * n) for n in range(42)]  # x of either

    def both() -> Pictures:
        for place in places:
            canvas = np.full((256, 590, 3), 110, np.uint8)
            for person in (1 - in_front, in_front):
                paste_head(canvas, people[person], place[person])
            yield canvas

    tracks = [track for track in follow(both()).tracks if len(track) >= EVERY]
    alone = points_alone(landmarker)
    seen: dict[str, set[int]] = {"before": set(), "after": set()}
    for track in tracks:
        shown = set()
        for number, points in enumerate(track.points):
            place = places[track.first_frame + number]
            distances = [
                float(np.linalg.norm(points - known - [x, 0], axis=1).mean())
                for known, x in zip(alone, place, strict=True)
            ]
            shown.add(int(np.argmin(distances)))
            assert min(distances) < 20
        assert len(shown) == 1, f"the track from frame {track.first_frame} on changes person"
        seen["before"] |= shown if track.first_frame < 10 else set()
        seen["after"] |= shown if track.first_frame + len(track) > 32 else set()
    assert seen == {"before": {0, 1}, "after": {0, 1}}


def test_faces_that_meet_end_their_tracks() -> None:
    """Without waiting for the next detection; a face that stays apart goes on."""
    starts = np.array([[0, 0, 100, 100, 1], [180, 0, 280, 100, 1], [190, 300, 290, 400, 1]], np.float32)

    def detector(pictures: Sequence[Picture]) -> list[Boxes]:
        return [starts if picture.max() == 0 else starts[2:] for picture in pictures]

    def landmarker(pictures: Sequence[Picture], boxes: Boxes) -> Points:
        """Faces that rush to the middle at 5 pixels a frame, but for the third."""
        speeds = np.where(boxes[:, 1] > 200, 0, np.where(boxes[:, 0] < 90, 5, -5))
        moved = boxes + speeds[:, None] * np.array([1, 0, 1, 0])
        return np.concatenate(
            [track_at([((x0 + x1) / 2, (y0 + y1) / 2)], x1 - x0).points for x0, y0, x1, y1 in moved.tolist()]
        )

    pictures = (np.full((400, 300, 3), int(n > 0), np.uint8) for n in range(20))
    first, second, apart = track_faces(pictures, detector, landmarker, 0.0, every=1000).tracks
    # They touch after 8 steps; 15 % of their union is shared when they lie 74 pixels apart.
    assert len(first) == len(second) == 10 and len(apart) == 20


def test_a_track_ends_where_the_face_was_last_confirmed(follow: Follow) -> None:
    """The face turns into something else in the same place and colours, without a cut."""
    collins, _ = heads()
    mixed = np.random.default_rng(0).permutation(collins.reshape(-1, 3)).reshape(256, 256, 3)
    frames = [collins] * 13 + [mixed] * 30
    tracks = follow(picture for frame in frames for picture in walk(frame, [(0, 0)], 256, 256)).tracks
    assert [track.first_frame for track in tracks] == [0]
    assert len(tracks[0]) == 13


def test_pictures_without_a_face_have_no_track(follow: Follow) -> None:
    assert follow(iter([np.full((200, 200, 3), 90, np.uint8)] * 5)) == Search(5, [])
    assert follow(iter([])) == Search(0, [])


def test_frames_that_were_doubled_are_told_from_those_that_hardly_move() -> None:
    moved = np.random.default_rng(0).uniform(0.8, 3, 120)
    moved[0] = np.inf
    assert not find_repeats(moved).any() and not find_repeats(moved / 50).any()
    doubled = np.where(np.arange(120) % 6 == 3, 0.05, moved)
    assert find_repeats(doubled).tolist() == (np.arange(120) % 6 == 3).tolist()
    each = np.where(np.arange(120) % 3 > 0, 0.0, moved)
    assert find_repeats(each).tolist() == (np.arange(120) % 3 > 0).tolist()
    quiet = moved.copy()
    quiet[:50], quiet[60:] = moved[:50] / 8, moved[60:] / 8  # beside a burst of motion
    assert not find_repeats(quiet).any()
    assert not find_repeats(np.zeros(30)).any() and not find_repeats(np.zeros(1)).any()  # a still


def track_at(places: list[tuple[float, float]], side: float) -> Track:
    """Points of a plausible spread, whose face box has this side and this centre."""
    points = np.random.default_rng(0).random((1, 68, 2), np.float32)
    box = face_box(points)[0]
    unit = (points - (box[:2] + box[2:]) / 2) / (box[2] - box[0])
    return Track(0, unit * np.float32(side) + np.array(places, np.float32)[:, None])


def test_a_crop_holds_the_head_in_all_frames() -> None:
    track = track_at([(600 + x, 400 + y) for x in (-60, 0, 60) for y in (-30, 0, 30)], side=150)
    crop = head_crop(track, 1920, 1080)
    heads = face_box(track.points) + 150 * np.array([-0.3, -0.55, 0.3, 0.2])
    assert crop.x <= heads[:, 0].min() + 1 and crop.x + crop.side >= heads[:, 2].max() - 1
    assert crop.y <= heads[:, 1].min() + 1 and crop.y + crop.side >= heads[:, 3].max() - 1
    assert 0 <= crop.x and crop.x + crop.side <= 1920 and 0 <= crop.y and crop.y + crop.side <= 1080
    assert 2 * 150 < crop.side < 2.5 * 150


def test_a_crop_stays_in_the_frame() -> None:
    assert head_crop(track_at([(70.0, 80.0)], side=100), 640, 480) == Crop(0, 0, 205)
    low = head_crop(track_at([(600.0, 440.0)], side=100), 640, 480)
    assert low.x + low.side == 640 and low.y + low.side == 480


def test_a_frame_that_is_a_head_crop_already_is_taken_whole() -> None:
    assert head_crop(track_at([(128.0, 135.0)], side=125), 256, 256) == Crop(0, 0, 256)
    assert head_crop(track_at([(128.0, 135.0)], side=100), 256, 256) == Crop(0, 0, 256)
    small = head_crop(track_at([(500.0, 500.0)], side=100), 1024, 1024)
    assert small.side == 205


def test_a_crop_leaves_a_narrow_frame_only_for_the_face() -> None:
    close_up = head_crop(track_at([(200.0, 120.0)], side=180), 400, 240)
    assert close_up.side == 240 and close_up.y == 0
    strip = head_crop(track_at([(60.0, 300.0)], side=110), 120, 600)
    assert strip.side >= 120 and strip.x == (120 - strip.side) // 2


def test_a_head_that_goes_far_is_cut_into_clips() -> None:
    track = track_at([(100.0 + 5 * n, 200.0) for n in range(100)], side=100)
    pieces = split_by_reach(track)
    assert len(pieces) > 1
    assert sum(len(piece) for piece in pieces) == 100
    assert [piece.first_frame for piece in pieces] == [0, *np.cumsum([len(piece) for piece in pieces])[:-1]]
    assert np.array_equal(np.concatenate([piece.points for piece in pieces]), track.points)
    assert split_by_reach(track_at([(100.0, 200.0)] * 9, side=100))[0].points.shape == (9, 68, 2)


def test_points_keep_their_place_when_pictures_are_scaled() -> None:
    """The corner of the picture, half a pixel before the first pixel's centre, stays the corner."""
    track = Track(3, np.full((1, 68, 2), -0.5, np.float32))
    assert np.array_equal(track.times(4.0, 2.0).points, track.points)
    assert track.times(4.0, 2.0).first_frame == 3
    assert np.all(Track(0, np.zeros((1, 68, 2), np.float32)).times(2.0, 2.0).points == 0.5)
