"""Names: each of ours resolves, and plug-ins of other packages are found, checked, and refused with a reason."""

import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import matplotlib
import pytest
import torch
from click.testing import CliRunner
from hatchling.builders.wheel import WheelBuilder

from detectors.checkpoint import NETWORKS
from thead_eval import plugins
from thead_eval.cli.generate import command as generate
from thead_eval.cli.list import Entry, command, entries
from thead_eval.cli.score import command as score
from thead_eval.errors import PluginError
from thead_eval.plugins import BUILT_IN, Kind
from thead_eval.testing import make_dataset
from thead_eval.types import Clip, FeatureMetric, FeatureNetwork, Landmarks, PixelMetric, SetMetric
from thead_eval.weights import TABLE

GUIDE = Path(__file__).parents[1] / "docs" / "plugins.md"

# (distribution, {group: {name: target}}, {file: text}) -> the folder that it is installed in
Install = Callable[[str, dict[str, dict[str, str]], dict[str, str]], Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a distribution on sys.path as pip leaves it: modules beside NAME-1.0.dist-info."""

    def put(name: str, groups: dict[str, dict[str, str]], files: dict[str, str]) -> Path:
        folder = tmp_path / "site-packages"
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        sections = [
            "\n".join([f"[{group}]", *(f"{key} = {target}" for key, target in entry_points.items())])
            for group, entry_points in groups.items()
        ]
        (info / "entry_points.txt").write_text("\n\n".join(sections) + "\n")
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        monkeypatch.syspath_prepend(folder)
        return folder

    return put


# Ours.


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in get_args(Kind) for name in BUILT_IN[kind]])
def test_every_built_in_name_resolves(kind: Kind, name: str) -> None:
    value = plugins.load(kind, name)
    if kind == "metric":
        assert isinstance(value, PixelMetric | FeatureMetric | SetMetric)
    elif kind == "features":
        assert isinstance(value, FeatureNetwork)
    else:
        value = value(torch.device("cpu"))
    assert value.name == name


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_built_in_name_is_described_and_needs_files_that_exist(kind: Kind) -> None:
    for entry in entries(kind):
        assert entry.error is None and entry.package == "theval"
        assert entry.summary and set(entry.weights) <= set(TABLE)
        assert entry.higher_is_better is None or kind == "metric"


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(
        PluginError, match=r"no metric is named 'simm'; did you mean 'ssim'\? \('theval list' shows all"
    ):
        plugins.load("metric", "simm")
    with pytest.raises(PluginError, match="no generator is named 'xyz'; there are: copy, warp"):
        plugins.load("generator", "xyz")
    with pytest.raises(PluginError, match="no feature network is named 'efflite1'; did you mean 'efflite0'"):
        plugins.load("features", "efflite1")


def test_the_kinds_to_train_are_listed_beside_the_detectors() -> None:
    for arguments in ([], ["detector"]):
        shown = CliRunner(env={"COLUMNS": "200"}).invoke(command, arguments).output
        assert "Kinds of detectors that 'theval detect train' trains" in shown and "timm:NAME\n    Any network" in shown
        assert "xception\n    Xception (Chollet 2017)" in shown
    assert "timm:NAME" not in CliRunner().invoke(command, ["metric"]).output
    rows = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    kinds = {row["name"] for row in rows if row["kind"] == "detector to train"}
    assert kinds == NETWORKS.keys() - {"timm"} | {"timm:NAME"}


# Those of others. The first is the example that docs/plugins.md gives.


def listed(kind: Kind) -> str:
    """What `theval list` says of a kind."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(command, [kind]).output


def guide_files() -> dict[str, str]:
    """The files of the example: a name in backquotes on a line of its own, then a block."""
    found = re.findall(r"^`([\w./]+)`\n\n```\w+\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def test_the_example_of_the_guide_works(install: Install) -> None:
    files = guide_files()
    assert list(files) == ["pyproject.toml", *(f"still_life/{name}.py" for name in ("colour", "still", "frozen"))]
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    assert project["dependencies"] == ["theval"]
    install(project["name"], project["entry-points"], files)

    metric = plugins.load("metric", "colour_shift")
    assert isinstance(metric, PixelMetric)
    black = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    red = black.clone()
    red[:, 0] = 30
    assert metric.load(torch.device("cpu"))(red, black).tolist() == [10, 10]

    generator = plugins.load("generator", "still")(torch.device("cpu"))
    assert generator.name == "still"
    driving = Landmarks(torch.zeros(5, 68, 2), torch.ones(5, dtype=torch.bool))
    fake = generator.adapt(Clip("someone", red, 25), driving.take([0, 1])).animate(driving, 25)
    assert isinstance(fake, Clip)
    assert fake.frames.equal(red[[0] * 5])

    assert plugins.available("detector")["frozen"].package == "still-life"
    detector = plugins.load("detector", "frozen")(torch.device("cpu"))
    assert detector.name == "frozen"
    assert detector.score(fake).tolist() == [1] * 5  # it does not move
    half = Clip("someone", torch.cat([black[:1], black[:1] + 2]), 25)
    torch.testing.assert_close(detector.score(half), torch.tensor([-2.0, -2.0]).exp())
    assert detector.score(Clip("someone", black[:1], 25)).isnan().tolist() == [True]
    assert "frozen  from still-life\n    Calls a fake what hardly moves" in listed("detector")


def test_the_example_of_the_guide_can_be_built(tmp_path: Path) -> None:
    for name, text in guide_files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (wheel,) = WheelBuilder(str(tmp_path)).build(directory=str(tmp_path / "dist"), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        held = archive.namelist()
    assert {name for name in guide_files() if name.endswith(".py")} <= set(held)
    assert "still_life-1.0.dist-info/entry_points.txt" in held


def test_list_shows_them_with_their_package_and_a_broken_one_with_its_reason(install: Install) -> None:
    files = guide_files()
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    install(project["name"], project["entry-points"], files)
    install(
        "broken-thing",
        {"theval.generator": {"fragile": "fragile_thing:make"}},
        {"fragile_thing.py": "raise RuntimeError('no licence [for] you')\n"},
    )
    text = listed("generator")
    assert "still  from still-life\n    Holds the first support frame." in text
    assert "fragile  from broken-thing\n    broken: generator 'fragile' of package 'broken-thing' failed to" in text
    assert "(RuntimeError: no licence [for] you); update or uninstall 'broken-thing'" in text
    rows = json.loads(CliRunner().invoke(command, ["generator", "--json"]).output)
    packages = {row["name"]: row["package"] for row in rows}
    ours = dict.fromkeys(BUILT_IN["generator"], "theval")
    assert packages == {**ours, "still": "still-life", "fragile": "broken-thing"}


def test_a_broken_plug_in_is_an_error_by_its_name_only(install: Install) -> None:
    install("broken", {"theval.metric": {"m": "broken_m:m"}}, {"broken_m.py": "import no_such_module\n"})
    with pytest.raises(PluginError, match=r"metric 'm' of package 'broken' failed to import \(ModuleNotFoundError: No"):
        plugins.load("metric", "m")
    assert plugins.load("metric", "ssim").name == "ssim"
    (entry,) = (entry for entry in entries("metric") if entry.name == "m")
    assert entry.error and "no_such_module" in entry.error


@pytest.mark.parametrize("theirs", ["ssim", "m"])
def test_a_name_taken_twice_is_an_error(theirs: str, install: Install) -> None:
    install("first", {"theval.metric": {"m": "first_m:m"}}, {})
    install("second", {"theval.metric": {theirs: "second_m:m"}}, {})
    with pytest.raises(PluginError, match=rf"metric '{theirs}' of package '\w+' is already taken by '\w+'; rename the"):
        plugins.available("metric")
    with pytest.raises(PluginError, match="already taken"):
        plugins.load("metric", "psnr")  # not even another name: which of the two would be meant is nobody's guess


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("metric", "m = 'a string'", r"\(odd:m\) is of type str; its entry point must name a value of PixelMetric or"),
        (
            "features",
            "m = 3",
            r"feature network 'm' of .* is of type int; its entry point must name a value of FeatureNetwork",
        ),
        (
            "generator",
            "m = 'a string'",
            r"generator 'm' .* is of type str; its entry point must name a callable that takes",
        ),
        (
            "metric",
            "from thead_eval import PixelMetric\nm = PixelMetric('another', True, '', '', None)",
            "calls itself 'another'; name the entry point so too",
        ),
    ],
)
def test_a_plug_in_that_is_something_else(
    kind: Kind, text: str, reason: str, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "odd", raising=False)
    install("odd-one", {f"theval.{kind}": {"m": "odd:m"}}, {"odd.py": text})
    with pytest.raises(PluginError, match=reason):
        plugins.load(kind, "m")


FACTORIES = """
def unlicensed(device):
    raise OSError("no licence server at port 7")


class Silent:
    name = "silent"

    def __init__(self, device):
        pass

    @property
    def checkpoint_sha256(self):
        raise KeyError("weights")
"""


def test_a_generator_that_cannot_be_made_is_named(install: Install, tmp_path: Path) -> None:
    targets = {"unlicensed": "odd_factories:unlicensed", "silent": "odd_factories:Silent"}
    install("odd-factories", {"theval.generator": targets}, {"odd_factories.py": FACTORIES})
    dataset = make_dataset(tmp_path / "dataset", identities=1, size=48).path
    photo = str(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    reasons = {
        "unlicensed": r"generator 'unlicensed' of package 'odd-factories' cannot be made \(OSError: no licence server "
        r"at port 7\); ask those who made 'odd-factories', or choose another",
        "silent": r"generator 'silent' cannot say which weights it has \(KeyError: 'weights'\); correct it, or choose",
    }
    for name, reason in reasons.items():
        named = ["--generator", name]
        for verb, arguments in (
            (generate, ["--photos", photo, "--drive", "nod", "-o", str(tmp_path / "fake.mp4")]),
            (generate, ["--data", dataset, "-o", str(tmp_path / "fakes")]),
            (score, ["--data", dataset, "--out", str(tmp_path / "run")]),
        ):
            with pytest.raises(PluginError, match=reason):
                verb.main([*arguments, *named], standalone_mode=False)
    assert not (tmp_path / "fake.mp4").exists() and not (tmp_path / "fakes").exists()


def test_an_entry_names_its_networks_files() -> None:
    (fid,) = (entry for entry in entries("metric") if entry.name == "fid")
    assert isinstance(fid, Entry)
    assert (fid.features, fid.weights, fid.higher_is_better) == (("inception_fid",), ("fid_inception",), False)
