"""The kinds of detectors: each to what it looks at, and all as files that come back."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.fft import dctn, idctn
from torch import Tensor

from detectors.backbone import Backbone
from detectors.calibration import Calibration
from detectors.checkpoint import NETWORKS, TrainedDetector, build, identity_hash, load_detector, save_detector
from detectors.efflite0 import EfficientNetLite0, resize
from detectors.either import noisy_or
from detectors.ensemble import Ensemble
from detectors.freq import Frequency
from detectors.grain import NAMES as GRAIN_NAMES
from detectors.grain import Grain
from detectors.landmarks import NAMES, measure
from detectors.linear import Line
from detectors.perceptron import Perceptrons
from detectors.probe import Probe, sum_up
from detectors.recipe import read_recipe
from detectors.seam import Seam, Sighted
from detectors.spectrum import Spectrum
from detectors.srm import Residual
from detectors.stack import Stack
from detectors.temporal import Thumbnails
from detectors.xception import Xception
from thead_eval.cli import theval
from thead_eval.errors import CheckpointError, ConfigError, DatasetError, RunError, WeightsMissing
from thead_eval.features import efflite_input, efflite_network
from thead_eval.media import write_clip
from thead_eval.synthetic import head_clip
from thead_eval.types import Clip

SMALL: dict[str, dict[str, Any]] = {
    "efflite0": {"size": 32},
    "sbi": {"size": 32},
    "srm": {"size": 32},
    "freq": {"size": 32},
    "temporal": {"size": 32},
    "xception": {"size": 64},
    "timm": {"backbone": "resnet10t", "size": 32},
    "spectrum": {},
    "landmarks": {},
    "grain": {},
    "probe": {},
    "seam": {},
    "stack": {"members": ["grain", "spectrum"]},
    "ensemble": {
        "members": [{"detector": "spectrum", "network": {}}, {"detector": "temporal", "network": {"size": 32}}]
    },
}


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """[20, 3, 64, 64]"""
    return head_clip(0, 20, 64, 25.0, 0)[0].frames


def saved(
    path: Path, name: str, config: dict[str, Any], seed: int = 0, generators: str = "[]", identities: str = "[]"
) -> Path:
    torch.manual_seed(seed)
    network = build(name, config).eval()
    for rule in network.modules():
        if isinstance(rule, Line | Perceptrons):
            for part, buffer in rule.named_buffers():
                if part.startswith("weight"):
                    buffer.normal_(0, 0.1)
    calibration = Calibration(1.0 + seed, 0.5, np.array([[1.0, 0.0]]))
    metadata = {"generators": generators, "identities": identities}
    save_detector(path, name, config, network, calibration, [], metadata)
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_comes_back_and_scores_frames(name: str, frames: Tensor, tmp_path: Path) -> None:
    detector = load_detector(saved(tmp_path / "a.safetensors", name, SMALL[name]))
    assert isinstance(detector, TrainedDetector)
    logits = detector.logits(frames)
    assert logits.shape == (20,) and logits.dtype == torch.float32
    if name != "landmarks":  # dlib sees no face in a procedural head of 64 pixels
        assert logits.isfinite().all()
    torch.testing.assert_close(detector.logits(frames), logits, equal_nan=True)
    if detector.window > 1:
        assert detector.logits(frames[: detector.window - 1]).isnan().all()


@pytest.mark.parametrize("name", ["efflite0", "srm", "freq", "temporal", "timm"])
def test_what_is_learnt_is_what_is_scored(name: str, frames: Tensor) -> None:
    torch.manual_seed(0)
    network: Any = build(name, SMALL[name]).eval()
    with torch.no_grad():
        reach = (network.window - 1) * network.stride + 1
        window = frames[0 : reach : network.stride]
        torch.testing.assert_close(network.learn(window[None])[0], network(frames[:reach])[0])


@pytest.mark.parametrize("kind", [Residual, Frequency])
def test_what_stands_beside_the_picture_begins_without_an_opinion(
    kind: type[Residual | Frequency], frames: Tensor
) -> None:
    plain, both = EfficientNetLite0(64), kind(64)
    for network in (plain, both):
        network.start()
        network.head.weight.data.fill_(0.01)
        network.eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(frames[:2]), both(frames[:2]))


def test_bands_of_frequencies_are_the_picture_taken_apart() -> None:
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = Frequency(32)
    with torch.no_grad():
        low, middle, high = (network.band(x, n) for n in range(3))
        torch.testing.assert_close(low + middle + high, x, atol=1e-5, rtol=0)
        spectrum = dctn(x.numpy(), axes=(2, 3), norm="ortho")
        i, j = np.indices((32, 32))
        kept = idctn(np.where((i + j >= 12) & (i + j < 16), spectrum, 0), axes=(2, 3), norm="ortho")
        np.testing.assert_allclose(middle.numpy(), kept, atol=1e-5)
        network.learnt[2] = 100.0  # a filter that has learnt to let all through, and its own band twice
        torch.testing.assert_close(network.band(x, 2), x + high, atol=1e-5, rtol=0)


def test_a_window_gives_its_logit_to_all_its_frames(frames: Tensor) -> None:
    torch.manual_seed(0)
    network = Thumbnails(32).eval()
    with torch.no_grad():
        logits = network(frames[:10])
        other = network(frames[:10].flip(0))
    assert len(logits[:7].unique()) == 1 and len(logits[7:].unique()) == 1
    assert not torch.allclose(logits[:3], other[7:])  # the order matters


def test_backbones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="timm has no network 'resnet10'; name one as timm:NAME, such as resnet1"):
        Backbone("resnet10")
    with pytest.raises(WeightsMissing, match="is not there; set"):
        Backbone("resnet10t", weights=str(tmp_path / "none.safetensors")).start()
    weights = tmp_path / "resnet10t.safetensors"
    whole = timm.create_model("resnet10t")
    save_file(whole.state_dict(), weights)
    network = Backbone("resnet10t", 32, str(weights))
    network.start()
    assert torch.equal(network.network.state_dict()["conv1.0.weight"], whole.state_dict()["conv1.0.weight"])
    network.train()
    before = network.network.state_dict()["bn1.running_mean"].clone()
    network(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert torch.equal(network.network.state_dict()["bn1.running_mean"], before)  # its statistics are kept
    save_file({"conv1.0.weight": torch.zeros(1)}, weights)
    with pytest.raises(ConfigError, match="holds another network"):
        network.start()
    assert isinstance(Xception(64).head.in_features, int)


def test_a_spectrum_knows_blur_and_not_direction() -> None:
    noise = torch.randint(0, 256, (2, 1, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise[:, 0].float(), 3, 1, 1)[:, None].to(torch.uint8)
    spectrum = Spectrum()
    plain, blurred, turned = (spectrum.measure(x) for x in (noise, smooth, noise.transpose(3, 4)))
    assert plain.shape == (2, 112)
    assert (plain[:, 5:].max() - plain[:, 5:].min()) < 1.5  # white
    assert (blurred[:, 70:75] < plain[:, 70:75] - 3).all()
    torch.testing.assert_close(plain, turned, atol=0.05, rtol=0.05)


def test_a_probe_starts_from_imagenet_and_learns_a_line_alone(frames: Tensor) -> None:
    probe = Probe().eval()
    blank = probe.measure(frames[:2, None])
    probe.start()
    numbers = probe.measure(frames[:2, None])
    assert numbers.shape == (2, 896) and not torch.allclose(numbers, blank)
    whole: Any = efflite_network(1)
    with torch.no_grad():
        x = efflite_input(resize(frames[:2], 224))
        for layer in (whole.conv_stem, whole.bn1, *whole.blocks[:5]):
            x = layer(x)
    torch.testing.assert_close(numbers, sum_up(x), rtol=1e-4, atol=1e-4)


def test_a_frame_is_summed_up_by_face_rim_and_the_rest() -> None:
    y, x = torch.meshgrid(*[(torch.arange(28) + 0.5) / 28] * 2, indexing="ij")
    random = torch.randn(1, 2, 28, 28, generator=torch.Generator().manual_seed(0))
    mean, deviation = sum_up(random).reshape(2, 4, 2)
    face = ((x - 0.5) / 0.27) ** 2 + ((y - 0.55) / 0.36) ** 2 < 1
    torch.testing.assert_close(mean[1], random[0][:, face].mean(dim=1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(deviation[1], random[0][:, face].std(dim=1, correction=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean[0], random[0].mean(dim=(1, 2)), rtol=1e-4, atol=1e-5)
    marked = torch.zeros(1, 1, 28, 28)
    marked[..., :3, :3] = 1  # a corner is of the rest alone
    assert (sum_up(marked)[0, :4] > 0).tolist() == [True, False, False, True]


def test_a_seam_looks_at_a_frame_and_at_its_fine_detail(frames: Tensor) -> None:
    seam = Seam().eval()
    seam.start()
    numbers = seam.measure(frames[:2, None])
    assert numbers.shape == (2, 1024)
    with torch.no_grad():
        flat = seam.measure(torch.full_like(frames[:1, None], 90))
        grey = seam.climb(torch.full((1, 3, 224, 224), 128.0))
    torch.testing.assert_close(flat[:, 512:], grey, rtol=1e-4, atol=1e-3)  # what is flat has no detail
    blurred = torch.nn.functional.avg_pool2d(frames[:2].float(), 5, 1, 2)
    assert not torch.allclose(numbers[:, 512:], seam.look(blurred.to(torch.uint8))[:, 512:], atol=0.1)


def test_a_blurred_frame_is_no_seam(frames: Tensor) -> None:
    draw = np.random.default_rng(0)
    numbers = draw.lognormal(0, 0.3, (400, 6))
    fake = np.arange(400) % 2 == 1
    numbers[fake, 4:] *= 0.5  # as blends, some of whose parts are blurred
    numbers[fake, 0] *= 1.5
    rule = Sighted(6, slice(4, 6))
    rule.fit(numbers, fake, np.ones(400), 1.0)
    sharpness = rule.sharpness(torch.from_numpy(numbers).float())
    assert (sharpness[~fake] < rule.get_buffer("least")).float().mean() == pytest.approx(0.15, abs=0.01)
    sharp, dull = torch.full((6,), 1.0), torch.full((6,), 0.01)
    usual = float(rule.get_buffer("usual"))
    line = Line(6)
    line.load_state_dict({name: value for name, value in rule.state_dict().items() if name in line.state_dict()})
    assert float(rule(sharp)) == float(line(sharp))  # there a line is a line
    assert float(line(dull)) > usual and float(rule(dull)) == usual
    gone = dull.clone()
    gone[0] = torch.nan
    assert rule(gone).isnan()
    real = torch.full((6,), 0.98 * float(rule.get_buffer("least").exp()))  # just so dull
    real[0] = -9  # what else there is speaks against a fake
    assert rule.sharpness(real) < rule.get_buffer("least")
    assert float(rule(real)) == float(line(real)) < usual
    seam = Seam().eval()
    seam.start()
    sighted: Any = seam.rule
    x = resize(frames[:1], 224)
    detail = ((x - seam.blur(x)) * 4 + 128).clamp(0, 255)
    second = sum_up(seam.network[:3](efflite_input(detail)))  # the stem, and two stages of 24 channels in the end
    torch.testing.assert_close(seam.look(frames[:1])[:, sighted.detail], second[:, 4 * 24 : 5 * 24])
    dulled = frames[:1].float()
    for _ in range(3):
        dulled = torch.nn.functional.avg_pool2d(dulled, 5, 1, 2, count_include_pad=False)
    sees = [sighted.sharpness(seam.look(each.to(torch.uint8)).detach()) for each in (frames[:1], dulled)]
    assert sees[1] < sees[0] - 0.1


def test_a_stack_knows_whose_numbers_are_whose(frames: Tensor) -> None:
    stack = Stack(["grain", "spectrum"]).eval()
    windows = frames[None, :16]
    grain, spectrum = stack.columns(stack.measure(windows).double().numpy())
    assert grain.shape == (1, 1, 198) and spectrum.shape == (1, 4, 112)
    np.testing.assert_allclose(grain[0, 0], Grain().measure(windows)[0], rtol=1e-5)
    np.testing.assert_allclose(spectrum[0], Spectrum().measure(frames[:16:4, None]), rtol=1e-5)
    with pytest.raises(ConfigError, match="a stack of 'efflite0' cannot be made"):
        Stack(["grain", "efflite0"])


def test_a_stack_says_who_learns_from_whom() -> None:
    stack = Stack(["grain", "probe"])
    grain, probe = stack.parts(["a", "b"], True, {"grain": ["a"]})
    assert grain == {"a": 1.0} and probe == pytest.approx({"a": 0.425, "b": 0.425, "blended": 0.15})
    assert stack.parts(["a", "b"], True, {"probe": ["b", "blended"]})[1] == {"b": 0.5, "blended": 0.5}
    assert stack.parts(["a", "b"], False, {"probe": ["b", "blended"]})[1] == {"b": 1.0}
    assert stack.parts(["b"], True, {"probe": ["a", "blended"]})[1] == {"blended": 1.0}  # a protocol holds 'a' out
    assert Stack(["grain", "seam"]).parts(["a"], True, {})[1] == {"blended": 1.0}  # as when it is alone
    with pytest.raises(
        ConfigError, match="the member 'grain' of a stack has nothing to learn: there are fakes of a, b, blended"
    ):
        stack.parts(["a", "b"], True, {"grain": ["c"]})
    with pytest.raises(ConfigError, match="train learns is for the detector 'stack'"):
        read_recipe("grain", None, {"learns": {"grain": ["a"]}})
    with pytest.raises(ConfigError, match="what 'grain' learns from is no list of generators"):
        read_recipe("stack", None, {"learns": {"grain": "warp"}})
    with pytest.raises(ConfigError, match="no member is named 'grian'; did you mean 'grain'"):
        stack.parts(["a", "b"], True, {"grian": ["a"]})


# The life of grain.


def grainy(seed: int, renewed: float, shift: int = 0) -> Tensor:
    """[16, 3, 224, 224] a blurred scene under noise, of which a part is new in each frame; moved along by `shift`."""
    draw = np.random.default_rng(seed)
    scene = cv2.GaussianBlur(draw.uniform(0, 255, (224, 300)), (0, 0), 6) * 4 - 380
    kept = draw.normal(0, 6, scene.shape)
    pictures = []
    for t in range(16):
        noise = np.sqrt(1 - renewed) * kept + np.sqrt(renewed) * draw.normal(0, 6, scene.shape)
        seen = (scene + noise).clip(0, 255).round()[:, t * shift : t * shift + 224]
        pictures.append(torch.from_numpy(np.repeat(seen[None].astype(np.uint8), 3, axis=0)))
    return torch.stack(pictures)


def grain_numbers(frames: Tensor) -> dict[str, float]:
    return dict(zip(GRAIN_NAMES, Grain().measure(frames[None])[0].tolist(), strict=True))


def test_grain_that_is_carried_along_shows() -> None:
    filmed, frozen, half, moved = (
        grain_numbers(frames) for frames in (grainy(0, 1.0), grainy(0, 0.0), grainy(0, 0.5), grainy(0, 0.0, shift=1))
    )
    for part in ("face", "rim", "background"):
        grain = f"{part}_band_0"
        assert abs(filmed[f"{grain}_alike_1"]) < 0.05 and abs(filmed[f"{grain}_alike_12"]) < 0.05
        assert frozen[f"{grain}_alike_12"] > 0.99 and frozen[f"{part}_still"] == 1.0
        assert half[f"{grain}_alike_4"] == pytest.approx(0.5, abs=0.05)
        assert filmed[f"{grain}_strength"] == pytest.approx(half[f"{grain}_strength"], abs=0.1)
        # What movement does not explain is what is new.
        assert filmed[f"{part}_left_12"] > half[f"{part}_left_12"] > frozen[f"{part}_left_12"] + 0.3
    # Where a picture moves as a whole, its grain is alike only once the movement is taken out, however far.
    assert abs(moved["face_band_0_alike_1"]) < 0.2
    assert moved["face_band_0_moved_1"] > 0.7 and moved["face_band_0_moved_12"] > 0.7
    assert moved["face_travel"] == pytest.approx(np.log(4 + 0.05), abs=0.1)  # four frames of one pixel
    assert abs(filmed["face_band_0_moved_12"]) < 0.3


def test_grain_is_judged_by_the_window_around_a_frame() -> None:
    torch.manual_seed(0)
    network = Grain()
    for buffer in network.rule.buffers():
        buffer.normal_()
    clip = torch.cat([grainy(0, 1.0), grainy(0, 0.0)])
    logits = network(clip)
    torch.testing.assert_close(logits[0], network.rule(network.measure(clip[None, :16]))[0])
    torch.testing.assert_close(logits[-1], network.rule(network.measure(clip[None, 16:]))[0])
    assert len(logits.unique()) == 5
    odd = network(clip[:19])  # windows begin at even frames
    torch.testing.assert_close(odd[-1], network.rule(network.measure(clip[None, 2:18]))[0])


def test_perceptrons_find_what_no_line_does() -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(3, 5, (400, 4))
    inside = np.abs(x[:, 0] - 3) < 3.4  # in the middle of one number, about a half
    rules: list[Line | Perceptrons] = [Line(4), Perceptrons(4, networks=2)]
    right = []
    for rule in rules:
        rule.fit(x[:300], inside[:300], np.ones(300), 1.0)
        logits = rule(torch.from_numpy(x).float()).numpy()
        right.append(((logits > 0) == inside)[300:].mean())
    assert right[0] < 0.65 and right[1] > 0.9
    with_gap = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, torch.nan, 0.0, 0.0]])
    assert rules[1](with_gap).isnan().tolist() == [False, True]


# The motion of landmarks.


def heads(seed: int = 0) -> NDArray[np.float32]:
    points: NDArray[np.float32] = head_clip(seed, 16, 224, 25.0, 0)[1].points.numpy()
    return points


def test_where_and_how_large_a_face_is_tells_nothing() -> None:
    numbers = dict(zip(NAMES, measure(heads()), strict=True))
    moved = dict(zip(NAMES, measure(heads() * 2 + 30), strict=True))
    assert moved == pytest.approx(numbers, rel=1e-3, abs=1e-5)


def test_trembling_and_a_stare_show() -> None:
    points = heads()
    numbers = dict(zip(NAMES, measure(points), strict=True))
    shaken = points + np.random.default_rng(0).normal(0, 1, points.shape).astype(np.float32)
    shaken_numbers = dict(zip(NAMES, measure(shaken), strict=True))
    assert shaken_numbers["tremble_nose"] > 2 * numbers["tremble_nose"]
    still = dict(zip(NAMES, measure(np.repeat(points[:1], 16, axis=0)), strict=True))
    for name in ("eye_deviation", "mouth_deviation", "tremble_mouth", "bend_oval", "yaw_speed"):
        assert still[name] == pytest.approx(0, abs=1e-9)
    points[3, 5] = np.nan
    assert np.isnan(measure(points)).all()


# Detectors that are fitted, by the command.


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Eight people, four of them to learn from, real and striped."""
    folder = tmp_path_factory.mktemp("zoo") / "fakes"
    folder.mkdir()
    rows = ["file,identity,label,split"]
    for number in range(16):
        clip = head_clip(number // 2, 8, 64, 25.0, 0)[0]
        name, striped = "stripe" if number % 2 else "real", clip.frames.clone()
        if number % 2:
            striped[:, :, ::2] = (striped[:, :, ::2] * 0.9).to(torch.uint8)
        write_clip(folder / f"{number}.mkv", Clip("a", striped, 25.0), lossless=True)
        rows.append(f"{number}.mkv,person{number // 2},{name},{'train' if number < 8 else 'val'}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return str(folder)


def detect_train(*arguments: str) -> Any:
    ran = CliRunner().invoke(theval, ["detect", "train", "--json", *arguments], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def test_where_nothing_can_be_blended_a_seam_says_so(fakes: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="only blends were to be learnt, and no real clip could be blended"):
        detect_train("--fakes", fakes, "--detector", "seam", "--no-faces", "-o", str(tmp_path / "seam"))


@pytest.mark.slow
def test_a_spectrum_and_an_ensemble_by_the_command(fakes: str, tmp_path: Path) -> None:
    config = tmp_path / "few.toml"
    config.write_text("[train]\nframes = 3\nvalidation_frames = 2\n")
    spectrum = tmp_path / "spectrum"
    ending = detect_train("--fakes", fakes, "--detector", "spectrum", "--config", str(config), "-o", str(spectrum))
    assert ending["best"] < 0.5 and ending["signal"] is None
    with pytest.raises(RunError, match="already holds a detector"):
        detect_train("--fakes", "nowhere", "--detector", "spectrum", "-o", str(spectrum))  # before anything is read
    detector = load_detector(spectrum)
    assert isinstance(detector, TrainedDetector)
    assert detector.generators == ("stripe",)

    people = json.dumps([identity_hash("somebody")])
    other = saved(tmp_path / "other.safetensors", "efflite0", {"size": 32}, 0, '["theirs"]', people)
    together = tmp_path / "ensemble"
    members = ["--member", str(spectrum), "--member", str(other)]
    detect_train("--fakes", fakes, "--detector", "ensemble", "--config", str(config), *members, "-o", str(together))
    ensemble = load_detector(together)
    assert isinstance(ensemble, TrainedDetector) and isinstance(ensemble.network, Ensemble)
    assert ensemble.generators == ("stripe", "theirs")
    assert ensemble.knows("somebody") and not ensemble.knows("nobody")
    frames = head_clip(3, 9, 64, 25.0, 0)[0].frames
    efficient = load_detector(other)
    assert isinstance(efficient, TrainedDetector)
    logits = torch.stack([detector.logits(frames), efficient.logits(frames)], dim=1)
    line = ensemble.network.get_buffer("line")
    assert line[0, 0] > 0  # of `spectrum`, which has learnt these fakes
    expected = noisy_or(logits * line[:, 0] + line[:, 1])
    torch.testing.assert_close(ensemble.logits(frames), expected, rtol=1e-3, atol=1e-4)


def test_neighbours_are_judged_together(frames: Tensor) -> None:
    torch.manual_seed(0)
    members = [{"detector": "grain", "network": {}}, {"detector": "efflite0", "network": {"size": 32}}]
    ensemble = Ensemble(members).eval()
    for part in ensemble.parameters():
        torch.nn.init.normal_(part, std=0.1)
    ensemble.get_buffer("line").copy_(torch.tensor([[2.0, -1.0], [0.5, 3.0]]))
    grain, efficient = ensemble.tell_apart(frames).T
    every_fourth = 0.5 * ensemble.members[1](frames[::4]) + 3
    torch.testing.assert_close(efficient, every_fourth.repeat_interleave(4)[: len(frames)])
    torch.testing.assert_close(grain, 2 * ensemble.members[0](frames) - 1)
    middle = len(frames) // 2  # its window of 17 frames lies within
    mean = torch.stack([grain, efficient], dim=1)[middle - 8 : middle + 9].mean(dim=0)
    torch.testing.assert_close(ensemble(frames)[middle], noisy_or(mean))
    window = frames[:16]  # judged as it is measured
    expected = noisy_or(ensemble.measure(window[None]))
    torch.testing.assert_close(ensemble(window), expected.expand(16))
    infinite: Any = ensemble.members[1]
    torch.nn.init.constant_(infinite.head.bias, torch.inf)
    assert ensemble.tell_apart(frames)[:, 1].isnan().all() and ensemble(frames).isnan().all()


def test_a_network_by_the_command(fakes: str, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text("[network]\nsize = 32\n[train]\nframes = 2\nvalidation_frames = 1\nbatch = 4\n")
    asked = ("--fakes", fakes, "--detector", "temporal", "--config", str(config), "--steps", "2", "--device", "cpu")
    ran = CliRunner().invoke(theval, ["detect", "train", "--json", *asked, "-o", str(tmp_path / "run")])
    assert json.loads(ran.stdout)["step"] == 2
    assert "too few clips to validate on: 5 real ones and 5 fakes show a false positive rate of 20 %" in ran.stderr
    assert (tmp_path / "run" / "best.safetensors").exists()
    with pytest.raises(RunError, match="already holds a detector"):  # of another kind, which a fit leaves alone
        detect_train("--fakes", fakes, "--detector", "spectrum", "-o", str(tmp_path / "run"))
    with pytest.raises(ConfigError, match="--without warp: the fakes are of stripe"):
        detect_train(*asked, "--without", "warp", "-o", str(tmp_path / "other"))
    assert "to learn from: 4 people, 4 real clips, 4 fakes of stripe" in ran.stderr
    told = CliRunner().invoke(theval, ["detect", "train", *asked, "-o", str(tmp_path / "run")])
    assert isinstance(told.exception, RunError) and "pass --resume" in str(told.exception)
    assert "to learn from" not in told.stderr  # said before anything is read


def test_what_an_option_is_for(fakes: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--steps means something only with a network"):
        detect_train("--fakes", fakes, "--detector", "spectrum", "--steps", "3", "-o", str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="an ensemble of 0 detectors is none"):
        detect_train("--fakes", fakes, "--detector", "ensemble", "-o", str(tmp_path / "a"))
    with pytest.raises(CheckpointError, match="there is no 'detectors/none'; name a detector's file"):
        detect_train(
            "--fakes", fakes, "--detector", "ensemble", "--member", "detectors/none", "-o", str(tmp_path / "b")
        )
    assert not (tmp_path / "b").exists()  # before anything is read
    shared = tmp_path / "shared"
    shutil.copytree(fakes, shared)
    shutil.copy(shared / "0.mkv", shared / "8.mkv")
    with pytest.raises(ConfigError, match=r"one recording \(sha256 .*\) is in train and val; put each in one split"):
        detect_train("--fakes", str(shared), "--detector", "spectrum", "-o", str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="--member means something only with --detector ensemble"):
        detect_train("--fakes", fakes, "--member", "x", "-o", str(tmp_path / "a"))
