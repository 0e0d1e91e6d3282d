"""Leaks that are planted are found, and what is apart is left alone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from benchmarks.fakes import make_fakes
from benchmarks.shots import ShotsConfig
from tests.test_detection import item
from thead_eval.audit import Audit, audit, shared_faces, shared_files, shared_identities, shared_recordings
from thead_eval.cli import theval
from thead_eval.cli.detect.audit import _print
from thead_eval.cli.detect.leaks import check_leaks
from thead_eval.data import open_dataset
from thead_eval.errors import ConfigError
from thead_eval.evidence import Evidence, read_evidence
from thead_eval.media import write_clip
from thead_eval.synthetic import head_clip
from thead_eval.tensors import read_tensors, write_tensors
from thead_eval.testing import make_dataset


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def test_a_person_a_recording_and_a_file_in_two_splits() -> None:
    anna = [replace(item("a", identity="anna"), sha256="1"), replace(item("b", "g", "anna"), sha256="2")]
    assert not [*shared_identities(anna), *shared_recordings(anna), *shared_files(anna)]
    learnt = replace(anna[1], split="train")
    (leak,) = shared_identities([anna[0], learnt])
    assert leak.what == "'anna' is in test and train" and leak.items == ("a", "b")
    (leak,) = shared_recordings([anna[0], replace(learnt, identity="bert")])
    assert "one recording" in leak.what
    (leak,) = shared_files([replace(each, sha256="same") for each in (anna[0], learnt)])
    assert "is in test and train" in leak.what
    (leak,) = shared_files([replace(each, sha256="same") for each in anna])
    assert "is in real and fake" in leak.what


def test_one_face_under_two_names() -> None:
    items = [item("a", identity="anna"), replace(item("b", identity="bert"), split="train")]
    near = {"anna": np.zeros(128, np.float32), "bert": np.full(128, 0.39 / np.sqrt(128), np.float32)}
    (leak,) = shared_faces(items, near)
    assert leak.what == "'anna' and 'bert' (test, train) may be one person: their faces' distance is 0.39"
    assert not leak.certain
    (copy,) = shared_faces(items, near | {"bert": np.full(128, 0.19 / np.sqrt(128), np.float32)})
    assert "look like one recording" in copy.what and copy.certain
    assert not list(shared_faces(items, near | {"bert": np.full(128, 0.41 / np.sqrt(128), np.float32)}))
    assert not list(shared_faces([items[0], replace(items[1], split="test")], near))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of eight heads, fakes of them with their reals beside them, and lossy fakes of another folder."""
    folder = tmp_path_factory.mktemp("audit")
    dataset = make_dataset(folder / "data", identities=8, frames=60, size=48)
    make_fakes(ShotsConfig(dataset.path, generators=("copy",), shots=(1,)), folder / "made", 0, quiet)
    for number in range(8):
        clip = head_clip(number, 20, 48)[0]
        (folder / "theirs" / f"head{number:04d}").mkdir(parents=True)
        write_clip(folder / "theirs" / f"head{number:04d}" / "fake.mp4", clip)
    rows = [f"head{n:04d}/fake.mp4,head{n:04d},theirs,test" for n in range(8)]
    (folder / "theirs" / "manifest.csv").write_text("\n".join(["file,identity,label,split", *rows]) + "\n")
    return folder


def audited(evidence: Evidence) -> Audit:
    return audit(evidence, 0, quiet, faces=None)


def test_fakes_coded_as_their_reals_are_not_told_by_their_files(folder: Path) -> None:
    found = audited(read_evidence(None, [folder / "made"]))
    assert found.metadata.value is not None and found.metadata.value <= 0.55
    assert not found.leaks and {tell.auc for tell in found.tells} == {0.5}


def test_fakes_of_another_codec_are_told_by_their_files(folder: Path) -> None:
    found = audited(read_evidence(None, [folder / "made", folder / "theirs"]).without(["copy"]))
    assert found.metadata.value == 1
    (leak,) = found.leaks
    assert leak.check == "metadata" and "AUC 1.00" in leak.what and "coding alone 1.00" in leak.what
    assert "frames alone 1.00" in leak.what and "fps" not in leak.what


def test_whole_clips_beside_short_fakes_are_told_by_their_length(folder: Path) -> None:
    found = audited(read_evidence(None, [folder / "data", folder / "made"]))
    assert found.leaks and found.leaks[0].check == "metadata"


def test_a_file_that_cannot_be_read_is_told(folder: Path) -> None:
    evidence = read_evidence(None, [folder / "theirs"])
    gone = replace(evidence.items[0], path="gone.mp4")
    found = audited(Evidence((gone, *evidence.items[1:]), evidence.size))
    assert "gone.mp4" in found.unreadable[0] and found.metadata.value is None


def test_the_command_exits_1_where_something_is_found(folder: Path) -> None:
    told = ["detect", "audit", "--no-faces", "--json", "--fakes", str(folder / "made")]
    good = CliRunner().invoke(theval, told)
    assert good.exit_code == 0, good.output
    assert json.loads(good.stdout)["leaks"] == []
    bad = CliRunner().invoke(theval, [*told[:3], *told[4:], "--fakes", str(folder / "theirs")])
    assert bad.exit_code == 1, bad.output
    assert "coding" in bad.stdout and "1 leak found." in bad.stdout


def test_faces_that_are_only_alike_are_named_and_no_leak(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = read_evidence(open_dataset(folder / "data"), [])
    few = [each for each in evidence.items if each.identity in ("head0000", "head0001")]
    pair = Evidence((replace(few[0], split="train"), replace(few[1], split="val")), evidence.size)
    kept = tmp_path / "faces.safetensors"
    audit(pair, 0, quiet, faces=pair, kept=kept)
    stored = read_tensors(kept, "theval detect train")
    for apart, leaks, doubts in ((0.1, 1, 0), (0.3, 0, 1), (0.5, 0, 0)):
        near = torch.full((128,), apart / 128**0.5)
        write_tensors(kept, {"head0000": torch.zeros(128), "head0001": near}, stored.metadata)
        found = audit(pair, 0, quiet, faces=pair, kept=kept)
        assert (len(found.leaks), len(found.doubts)) == (leaks, doubts)
        _print(found, fair=True)
        assert ("1 pair of people to look at" in capsys.readouterr().out) == bool(doubts)


def test_faces_are_measured_once(folder: Path, tmp_path: Path) -> None:
    evidence = read_evidence(open_dataset(folder / "data"), [])
    few = Evidence(tuple(each for each in evidence.items if each.identity in ("head0000", "head0001")), evidence.size)
    told: list[str] = []
    kept = tmp_path / "run" / "faces.safetensors"

    def audited_faces() -> Audit:
        return audit(few, 0, lambda what, done, total: told.append(what), faces=few, kept=kept)

    found = audited_faces()
    assert found.faces == 2 and "faces" in told  # where landmarks are known, no finder has to see a face
    told.clear()
    assert audited_faces() == found and "faces" not in told
    fold = Evidence(tuple(replace(item, split="val") for item in few.items), few.size)
    audit(fold, 0, lambda what, done, total: told.append(what), faces=fold, kept=kept)
    assert "faces" not in told  # whatever split they are in
    others = Evidence(few.items[:1], few.size)
    assert audit(others, 0, quiet, faces=others, kept=kept).faces == 1


def test_one_clip_under_two_names_is_refused(folder: Path, tmp_path: Path) -> None:
    """Cut and coded anew, so that neither name nor sha256 tells."""
    evidence = read_evidence(open_dataset(folder / "data"), [])
    first = replace(evidence.items[0], split="train")
    second = replace(first.part(1, 50), identity="other", source="other", split="val")
    both = Evidence((first, second), evidence.size)
    said: list[str] = []
    kept = tmp_path / "faces.safetensors"
    with pytest.raises(ConfigError, match=r"'head0000' and 'other' \(train, val\) look like one recording.*--no-faces"):
        check_leaks(both, 0, quiet, said.append, faces=True, kept=kept, leaky=False)
    check_leaks(both, 0, quiet, said.append, faces=True, kept=kept, leaky=True)
    assert len(said) == 2
    check_leaks(both, 0, quiet, said.append, faces=False, kept=kept, leaky=False)
    assert len(said) == 2


def test_faces_of_real_people_need_a_face(folder: Path) -> None:
    evidence = read_evidence(None, [folder / "made"])
    few = tuple(each for each in evidence.items if each.identity in ("head0000", "head0001"))
    some = Evidence(few, evidence.size)
    found = audit(some, 0, quiet, faces=some)
    assert found.faces + len(found.faceless) == 2
    assert torch.is_grad_enabled()
