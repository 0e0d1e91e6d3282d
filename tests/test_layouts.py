"""Public benchmarks, procedural clips laid out as theirs: who is in what, which split, and that nobody is in two."""

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from thead_eval.cli import theval
from thead_eval.errors import ConfigError
from thead_eval.evidence import read_evidence
from thead_eval.layouts import COLUMNS
from thead_eval.media import write_clip, write_image
from thead_eval.sources import Ratios, survey
from thead_eval.synthetic import head_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A procedural head of three frames."""
    path = tmp_path_factory.mktemp("clip") / "head.mp4"
    write_clip(path, head_clip(0, 3, 64)[0])
    return path


def lay_out(folder: Path, clip: Path, files: Iterable[str]) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, folder / file)
    return folder


def called(*arguments: object) -> Result:
    return CliRunner().invoke(theval, ["import", *map(str, arguments)])


def imported(*arguments: object, out: Path) -> dict[str, dict[str, str]]:
    """The rows of the manifest, by the end of their file's path."""
    ran = called(*arguments, "-o", out)
    assert ran.exit_code == 0, ran.output or ran.exception
    with out.open(newline="") as lines:
        reader = csv.DictReader(lines)
        assert tuple(reader.fieldnames or ()) == COLUMNS
        rows = list(reader)
    splits: dict[str, set[str]] = {}
    for row in rows:
        for person in {row["identity"], row["target"], row["source"]} - {""}:
            splits.setdefault(person, set()).add(row["split"])
    assert all(len(own) == 1 for own in splits.values()), splits
    return {"/".join(Path(row["file"]).parts[-2:]): row for row in rows}


def test_voxceleb_has_its_own_test_people(clip: Path, tmp_path: Path) -> None:
    files = ["dev/mp4/id00012/abc/00001.mp4", "dev/mp4/id00012/def/00001.mp4", "dev/mp4/id00015/abc/00002.mp4"]
    folder = lay_out(tmp_path / "vox", clip, [*files, "test/mp4/id00017/xyz/00001.mp4", "readme/1.mp4"])
    rows = imported("voxceleb", folder, out=tmp_path / "vox.csv")
    assert len(rows) == 4 and rows["xyz/00001.mp4"]["split"] == "test"
    assert {row["identity"] for row in rows.values()} == {"id00012", "id00015", "id00017"}
    assert rows["def/00001.mp4"]["split"] in ("train", "val")
    # 'theval prepare' reads what was written.
    found = survey(folder, "auto", Ratios(0, 0, 1), tmp_path / "vox.csv")
    assert len(found.sources) == 4 and {s.identity: s.split for s in found.sources}["id00017"] == "test"
    told = called("voxceleb", folder, "-o", tmp_path / "vox.csv", "--json")
    assert json.loads(told.stdout)["left_out_as_not_of_the_layout"] == 1


def test_voxceleb_as_video_preprocessing_has_it(clip: Path, tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "vox", clip, ["test/id10280#NXjT3732Ekg#001093#001192.mp4"])
    (row,) = imported("voxceleb", folder, out=tmp_path / "vox.csv").values()
    assert (row["identity"], row["split"]) == ("id10280", "test")


FACEFORENSICS = [
    *(f"original_sequences/youtube/c23/videos/{number}.mp4" for number in ("000", "003", "010", "012", "020", "022")),
    "original_sequences/youtube/c40/videos/000.mp4",
    "original_sequences/actors/c23/videos/01__hugging_happy.mp4",
    "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
    "manipulated_sequences/Deepfakes/c40/videos/000_003.mp4",
    "manipulated_sequences/Face2Face/c23/videos/012_010.mp4",
    "manipulated_sequences/NeuralTextures/c23/videos/020_022.mp4",
    "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__hugging_happy__YVGY8LOK.mp4",
]


def test_faceforensics_by_its_lists_of_pairs(clip: Path, tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "ff", clip, FACEFORENSICS)
    (folder / "splits").mkdir()
    for split, pair in (("train", ["000", "003"]), ("val", ["010", "012"]), ("test", ["022", "020"])):
        (folder / "splits" / f"{split}.json").write_text(json.dumps([pair]))
    rows = imported("faceforensics", folder, out=tmp_path / "ff.csv")
    assert len(rows) == 9  # of c23, without the actors, whom no list names
    fake = next(row for row in rows.values() if row["label"] == "Deepfakes")
    assert (fake["identity"], fake["target"], fake["source"], fake["split"]) == ("003", "000", "003", "train")
    fake = next(row for row in rows.values() if row["label"] == "Face2Face")
    assert (fake["identity"], fake["target"], fake["source"], fake["split"]) == ("012", "012", "010", "val")
    assert {row["split"] for row in rows.values() if row["label"] == "NeuralTextures"} == {"test"}
    assert len(imported("faceforensics", folder, "--compression", "c40", out=tmp_path / "c40.csv")) == 2


def test_faceforensics_without_lists_keeps_pairs_together(clip: Path, tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "ff", clip, FACEFORENSICS)
    rows = imported("faceforensics", folder, out=tmp_path / "ff.csv")
    assert len(rows) == 11  # all of c23: no fake is lost
    assert called("faceforensics", folder, "--split", "official", "-o", tmp_path / "x.csv").exit_code == 1
    refused = called("faceforensics", folder, "--compression", "c24", "-o", tmp_path / "x.csv")
    assert isinstance(refused.exception, ConfigError) and "c24 is none of c0, c23, c40, raw" in str(refused.exception)


CELEB_DF = [
    *(f"Celeb-real/id{number}_0000.mp4" for number in range(6)),
    "YouTube-real/00170.mp4",
    "YouTube-real/00171.mp4",
    "Celeb-synthesis/FaceSwap/BlendFace/id0_id1_0000.mp4",
    "Celeb-synthesis/FaceSwap/BlendFace/id2_id3_0000.mp4",
    "Celeb-synthesis/FaceSwap/SimSwap/id1_id2_0000.mp4",
    "Celeb-synthesis/FaceReenact/LIA/id0_id4_0000.mp4",
    "Celeb-synthesis/TalkingFace/SadTalker/id5_0000.mp4",
]


def test_celeb_df_keeps_its_test_list_whole(clip: Path, tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "cdf", clip, CELEB_DF)
    tested = [
        "YouTube-real/00170.mp4",
        "Celeb-real/id0_0000.mp4",
        "Celeb-synthesis/FaceSwap/BlendFace/id0_id1_0000.mp4",
    ]
    lines = [f"{int('real' in file)} {file}\n" for file in tested]
    (folder / "List_of_testing_videos.txt").write_text("".join(lines))
    rows = imported("celeb-df", folder, out=tmp_path / "cdf.csv")
    assert sorted(row["split"] for row in rows.values()).count("test") == 3
    swap = rows["BlendFace/id0_id1_0000.mp4"]
    assert (swap["identity"], swap["label"], swap["target"], swap["source"]) == ("id1", "BlendFace", "id0", "id1")
    # id0 and id1 are in the test list, so nothing else may show them: LIA, SimSwap and id1's own video are gone.
    assert not {"LIA/id0_id4_0000.mp4", "SimSwap/id1_id2_0000.mp4", "Celeb-real/id1_0000.mp4"} & rows.keys()
    assert rows["BlendFace/id2_id3_0000.mp4"]["split"] == "train"
    told = called("celeb-df", folder, "-o", tmp_path / "cdf.csv")
    assert "3 videos that show people of two splits" in told.stdout


def test_celeb_df_by_people(clip: Path, tmp_path: Path) -> None:
    """Everyone is swapped with everyone: fakes that cross splits are left out, and counted."""
    pairs = [(a, b) for a in range(12) for b in range(12) if a != b]
    files = [f"Celeb-real/id{number}_0000.mp4" for number in range(12)]
    files += [f"Celeb-synthesis/id{a}_id{b}_0000.mp4" for a, b in pairs]
    folder = tmp_path / "cdf"
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    rows = imported("celeb-df", folder, "--ratios", "0.5,0.2,0.3", out=tmp_path / "cdf.csv")
    assert {row["split"] for row in rows.values()} == {"train", "val", "test"}
    assert sum(row["label"] == "real" for row in rows.values()) == 12
    counts = json.loads(
        called("celeb-df", folder, "--ratios", "0.5,0.2,0.3", "-o", tmp_path / "x.csv", "--json").stdout
    )
    assert counts["videos"] + counts["left_out_as_people_cross"] == 12 + len(pairs)
    assert counts["labels"]["Celeb-DF"] == counts["videos"] - 12


def test_talkingheadbench_and_its_reals(clip: Path, tmp_path: Path) -> None:
    fakes = ["LivePortrait/train/00001--abcdefghijk_0--LivePortrait.mp4", "Hallo/test/00002--zyx_3--Hallo.mp4"]
    fakes += ["Hallo/train/00003--zyx_7--Hallo.mp4", "additional_dataset/MAGI-1/00004--qqq_1--MAGI-1.mp4"]
    folder = lay_out(tmp_path / "thb", clip, [f"fake/{file}" for file in fakes])
    reals = lay_out(tmp_path / "reals", clip, ["celebv/uvw_2.mp4", "ff/000.mp4", "celebv/unlisted_1.mp4"])
    (folder / "real").mkdir()
    names = {"train": {"celebvhq": ["uvw_2.mp4"]}, "test": {"ff++": ["000.mp4", "999.mp4"]}}
    (folder / "real" / "real_dataset_split.json").write_text(json.dumps(names))
    rows = imported("talkingheadbench", folder, "--reals", reals, out=tmp_path / "thb.csv")
    what = {name: (row["label"], row["split"], row["identity"]) for name, row in rows.items()}
    assert what == {
        "train/00001--abcdefghijk_0--LivePortrait.mp4": ("LivePortrait", "train", "ffhq-00001"),
        "test/00002--zyx_3--Hallo.mp4": ("Hallo", "test", "ffhq-00002"),  # zyx drives one of train too, which goes
        "MAGI-1/00004--qqq_1--MAGI-1.mp4": ("MAGI-1", "test", "ffhq-00004"),
        "celebv/uvw_2.mp4": ("real", "train", "uvw"),
        "ff/000.mp4": ("real", "test", "000"),
    }
    assert len(survey(tmp_path, "auto", Ratios(0, 0, 1), tmp_path / "thb.csv").sources) == 5


def test_deepfakebench_frames_become_clips_that_detectors_read(tmp_path: Path) -> None:
    """As DF40 lists them: with the paths of somebody's machine, with test videos in 'val' too."""
    folder, index = tmp_path / "rgb", tmp_path / "simswap_ff.json"
    listed: dict[str, dict[str, dict[str, object]]] = {"FF-real": {}, "simswap_Fake": {}}
    place = {"FF-real": "FaceForensics++/original_sequences/youtube/c23/frames", "simswap_Fake": "DF40/simswap/frames"}
    for label, split, name in (
        ("FF-real", "train", "000"),
        ("FF-real", "test", "010"),
        ("simswap_Fake", "train", "000_003"),
        ("simswap_Fake", "test", "010_012"),
    ):
        home = folder / place[label] / name
        home.mkdir(parents=True)
        for number, frame in zip((0, 9, 100), head_clip(int(name[:3]), 3, 64)[0].frames, strict=True):
            write_image(home / f"{number}.png", frame)
        frames = [f".\\datasets\\rgb\\{place[label]}/{name}/{number}.png" for number in (100, 0, 9)]
        for each in {split, "val" if split == "test" else split}:
            videos = listed[label].setdefault(each, {"c23": {}} if label == "FF-real" else {})
            (videos["c23"] if label == "FF-real" else videos)[name] = {"label": label, "frames": frames}  # type: ignore[index]
    index.write_text(json.dumps({"simswap_ff": listed}))
    rows = imported("deepfakebench", folder, "--index", index, out=tmp_path / "made" / "manifest.csv")
    assert {name: (row["label"], row["identity"], row["split"]) for name, row in rows.items()} == {
        "frames/000.mkv": ("real", "000", "train"),
        "frames/010.mkv": ("real", "010", "test"),
        "frames/000_003.mkv": ("simswap", "003", "train"),
        "frames/010_012.mkv": ("simswap", "012", "test"),
    }
    evidence = read_evidence(None, [tmp_path / "made"])
    assert [(item.label, item.generator, item.frames) for item in evidence.items] == [
        ("fake", "simswap", 3), ("fake", "simswap", 3), ("real", "", 3), ("real", "", 3)]  # fmt: skip
    # Frame 9 comes before frame 100, though not by its name.
    first = evidence.read(next(item for item in evidence.items if "000.mkv" in item.id), [1]).frames
    assert len(first) == 1
    missing = called("deepfakebench", folder, "-o", tmp_path / "x.csv")
    assert isinstance(missing.exception, ConfigError) and "pass --index FILE" in str(missing.exception)


def test_what_is_no_benchmark_is_refused(clip: Path, tmp_path: Path) -> None:
    folder = lay_out(tmp_path / "any", clip, ["a.mp4"])
    for arguments, message in (
        (("celeb-df", folder), "holds no video where layout 'celeb-df' has them"),
        (("celeb-df", tmp_path / "absent"), "is not a folder"),
        (("celeb-df", folder, "--reals", folder), "means something only with layout talkingheadbench"),
        (("deepfakebench", folder, "--index", folder / "a.mp4"), "cannot be read as JSON"),
    ):
        ran = called(*arguments, "-o", tmp_path / "x.csv")
        assert isinstance(ran.exception, ConfigError) and message in str(ran.exception), ran.exception
