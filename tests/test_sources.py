"""Who is in which video: layouts, manifests and splits."""

from pathlib import Path

import pytest

from thead_eval.errors import ConfigError
from thead_eval.sources import Layout, Ratios, Source, find_sources, survey

RATIOS = Ratios(0.7, 0.15, 0.15)


def folder_of(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def by_file(sources: list[Source]) -> dict[str, Source]:
    return {source.file: source for source in sources}


@pytest.mark.parametrize("layout", ["auto", "voxceleb"])
def test_voxceleb_folders_name_the_person(tmp_path: Path, layout: Layout) -> None:
    folder_of(tmp_path, "id10001/aaa/00001.mp4", "id10001/bbb/00001.mp4", "id10002/aaa/00001.mp4")
    sources = find_sources(tmp_path, layout, RATIOS)
    assert [source.identity for source in sources] == ["id10001", "id10001", "id10002"]
    assert [source.name for source in sources] == ["id10001-aaa-00001", "id10001-bbb-00001", "id10002-aaa-00001"]
    assert sources[0].split == sources[1].split
    assert {source.label for source in sources} == {"real"}
    below = find_sources(folder_of(tmp_path / "x", "dev/mp4/id10003/aaa/00001.m4v"), layout, RATIOS)
    assert below[0].identity == "id10003"


@pytest.mark.parametrize("layout", ["auto", "faceforensics"])
def test_faceforensics_paths_name_method_and_people(tmp_path: Path, layout: Layout) -> None:
    folder_of(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        "original_sequences/youtube/c23/videos/003.mp4",
        "original_sequences/youtube/c40/videos/000.mp4",
        "original_sequences/actors/c23/videos/01__hugging_happy.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
        "manipulated_sequences/Face2Face/c23/videos/000_003.mp4",
        "manipulated_sequences/NeuralTextures/raw/videos/003_000.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__hugging_happy__YVGY8LOK.mp4",
        "manipulated_sequences/Deepfakes/masks/videos/000_003.mp4",  # a picture of the mask, nobody's face
        "manipulated_sequences/Deepfakes/c23/videos/readme.mp4",
    )
    sources = by_file(find_sources(tmp_path, layout, RATIOS))
    assert len(sources) == 8
    what = {file: (source.label, source.identity) for file, source in sources.items()}
    assert what["original_sequences/youtube/c23/videos/000.mp4"] == ("real", "000")
    assert what["original_sequences/actors/c23/videos/01__hugging_happy.mp4"] == ("real", "actor-01")
    # The first number is whose video it is, the second whose face or expression was put there.
    assert what["manipulated_sequences/Deepfakes/c23/videos/000_003.mp4"] == ("Deepfakes", "003")
    assert what["manipulated_sequences/Face2Face/c23/videos/000_003.mp4"] == ("Face2Face", "000")
    assert what["manipulated_sequences/NeuralTextures/raw/videos/003_000.mp4"] == ("NeuralTextures", "003")
    swap = "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__hugging_happy__YVGY8LOK.mp4"
    assert what[swap] == ("DeepFakeDetection", "actor-02")


def test_faceforensics_pairs_share_a_split(tmp_path: Path) -> None:
    """A fake shows two people: no other split may know either of them."""
    pairs = [(f"{n:03}", f"{n + 100:03}") for n in range(100)]
    for a, b in pairs:
        for one in (a, b):
            folder_of(tmp_path, f"original_sequences/youtube/c23/videos/{one}.mp4")
        folder_of(tmp_path, f"manipulated_sequences/FaceSwap/c23/videos/{a}_{b}.mp4")
    sources = find_sources(tmp_path, "auto", RATIOS)
    split = {source.identity: source.split for source in sources}
    assert all(split[a] == split[b] for a, b in pairs)
    assert {"train", "val", "test"} == set(split.values())


def test_flat_files_are_a_person_each(tmp_path: Path) -> None:
    folder_of(
        tmp_path, "anna.mp4", "ben.MOV", "notes.txt", ".hidden.mp4", "more/anna.mp4", ".git/x.mp4", "out/shard.mp4"
    )
    sources = find_sources(tmp_path, "auto", RATIOS, exclude=tmp_path / "out")
    assert [(source.file, source.identity) for source in sources] == [
        ("anna.mp4", "anna"),
        ("ben.MOV", "ben"),
        ("more/anna.mp4", "more-anna"),
    ]


@pytest.mark.parametrize("layout", ["auto", "folders"])
def test_a_folder_of_several_clips_is_one_person(tmp_path: Path, layout: Layout) -> None:
    """Read as flat, ann would be two people, perhaps one in train and one in test."""
    folder_of(tmp_path, "ann/1.mp4", "ann/2.mp4", "bob/1.mp4", "out/3.mp4")
    found = survey(tmp_path, layout, RATIOS, exclude=tmp_path / "out")
    assert found.layout == "folders" and found.people == ["ann", "bob"] and found.left_out == 0
    assert [(source.file, source.identity) for source in found.sources] == [
        ("ann/1.mp4", "ann"),
        ("ann/2.mp4", "ann"),
        ("bob/1.mp4", "bob"),
    ]
    assert found.sources[0].split == found.sources[1].split


def test_a_clip_of_each_is_a_person_by_the_name_of_the_folder(tmp_path: Path) -> None:
    """So that a second clip later makes no new person."""
    assert survey(folder_of(tmp_path, "ann/1.mp4", "bob/1.mp4"), "auto", RATIOS).people == ["ann", "bob"]


def test_a_survey_tells_the_layout_and_what_it_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path, "ann/1.mp4", "ann/2.mp4", "loose.mp4")
    found = survey(tmp_path, "folders", RATIOS)
    assert (len(found.sources), found.people, found.left_out) == (2, ["ann"], 1)
    (tmp_path / "list.csv").write_text("file,identity\nann/1.mp4,anna\n")
    assert survey(tmp_path, "auto", RATIOS, tmp_path / "list.csv").layout == "manifest"


@pytest.mark.parametrize("files", [("loose.mp4", "ann/1.mp4", "ann/2.mp4"), ("ann/1.mp4", "ann/2.mp4", "bob/x/1.mp4")])
def test_paths_that_do_not_tell_who_are_refused(tmp_path: Path, files: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"'ann' holds several, .* give a --manifest, or --layout folders"):
        find_sources(folder_of(tmp_path, *files), "auto", RATIOS)


def test_names_are_unique_and_safe(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.mp4", "a.avi", "b/c.mp4", "b-c.mp4", "x y~1.mp4")
    names = {source.file: source.name for source in find_sources(tmp_path, "flat", RATIOS)}
    assert len(set(names.values())) == 5
    assert names["x y~1.mp4"] == "x-y-1"
    assert all("/" not in name and "~" not in name and " " not in name for name in names.values())


def test_manifest_names_people_labels_and_splits(tmp_path: Path) -> None:
    videos = folder_of(tmp_path / "videos", "1.mp4", "2.mp4", "3.mp4", "4.mp4", "picture.png", "unlisted.mp4")
    folder_of(tmp_path, "elsewhere/5.mp4")
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        "file,identity,label,split,extra\n"
        "videos/2.mp4,ben,ganface,test,x\n"  # relative to the manifest
        "1.mp4,anna,,,y\n"  # relative to the folder
        "videos/3.mp4,ben,real,,z\n"
        "elsewhere/5.mp4,carl,real,,\n"
        "videos/picture.png,anna,real,train,\n"
    )
    sources = find_sources(videos, "auto", RATIOS, manifest)
    assert [(s.file, s.identity, s.label) for s in sources] == [
        ("1.mp4", "anna", "real"),
        ("2.mp4", "ben", "ganface"),
        ("3.mp4", "ben", "real"),
    ]
    assert [s.split for s in sources[1:]] == ["test", "test"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,person\n1.mp4,anna\n", "no column 'identity'"),
        ("", "no column 'file'"),
        ("file,identity\n9.mp4,anna\n", r"line 2: there is no file '9\.mp4'"),
        ("file,identity\n1.mp4,anna\n1.mp4,ben\n", "lines 2 and 3 name one file"),
        ("file,identity\n1.mp4,\n", "line 2: '' cannot be an identity"),
        ("file,identity\n1.mp4,a/b\n", "line 2: 'a/b' cannot be an identity"),
        ("file,identity\n1.mp4,a~2\n", "line 2: 'a~2' cannot be an identity"),
        ("file,identity,split\n1.mp4,anna,dev\n", "split 'dev' is none of train, val, test"),
        ("file,identity,split\n1.mp4,anna,train\n2.mp4,anna,test\n", "identity 'anna' in 'train' and in 'test'"),
        ("file,identity\nx.txt,anna\n", "names no video inside"),
    ],
)
def test_wrong_manifests_say_where(tmp_path: Path, text: str, message: str) -> None:
    folder_of(tmp_path, "1.mp4", "2.mp4")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ConfigError, match=message):
        find_sources(tmp_path, "auto", RATIOS, tmp_path / "list.csv")


def test_wrong_arguments_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        find_sources(tmp_path / "absent", "auto", RATIOS)
    with pytest.raises(ConfigError, match="holds no video"):
        find_sources(tmp_path, "auto", RATIOS)
    folder_of(tmp_path, "1.mp4")
    with pytest.raises(ConfigError, match="give another --layout"):
        find_sources(tmp_path, "voxceleb", RATIOS)
    with pytest.raises(ConfigError, match="does not add up to 1"):
        find_sources(tmp_path, "flat", Ratios(0.5, 0.2, 0.1))
    with pytest.raises(ConfigError, match="cannot read manifest"):
        find_sources(tmp_path, "flat", RATIOS, tmp_path / "absent.csv")
    (tmp_path / "list.csv").write_text("file,identity\n1.mp4,anna\n")
    with pytest.raises(ConfigError, match="give one of them"):
        find_sources(tmp_path, "voxceleb", RATIOS, tmp_path / "list.csv")


def test_splits_have_the_asked_size_and_stay_when_others_come(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"person{n}.mp4" for n in range(400)))
    first = {source.identity: source.split for source in find_sources(tmp_path, "flat", RATIOS)}
    share = [list(first.values()).count(split) / 400 for split in ("train", "val", "test")]
    assert share == pytest.approx([0.7, 0.15, 0.15], abs=0.05)
    folder_of(tmp_path, *(f"new{n}.mp4" for n in range(50)))
    second = {source.identity: source.split for source in find_sources(tmp_path, "flat", RATIOS)}
    assert first.items() <= second.items()
    assert {source.split for source in find_sources(tmp_path, "flat", Ratios(0, 0, 1))} == {"test"}


def test_real_catalogue_is_a_manifest(real_data: Path) -> None:
    sources = find_sources(real_data / "real", "auto", RATIOS, real_data / "catalogue.csv")
    assert len(sources) == 165
    assert len({source.identity for source in sources}) == 161
    assert {source.label for source in sources} == {"real"}
