"""Forward passes: Veduta's networks against the public PyTorch networks that compute the same.

    PYTHONPATH=src .bench/bin/python -m benchmarks.forward

Eval mode, fp32, one image, one thread. Both sides get the same weights, and must give the same numbers first. Veduta's
side starts at RGB in [0, 1] and normalises; the peer's input is normalised already. Each runs in the usual memory
layout and in channels_last. Takes some minutes; docs/benchmarks.md says how to make .bench.
"""

import copy
import re
from collections.abc import Callable, Iterator
from functools import partial

import timm
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.timing import Round, compare
from veduta.models import build_model
from veduta.models.layers import Normalize
from veduta.models.xception import Xception, xception65

ROUNDS, WARMUP = 20, 3
FORMATS = {"": torch.contiguous_format, ", channels_last": torch.channels_last}

TIMM_XCEPTION = {  # timm's names -> ours
    r"stem_(\d)\.conv": r"conv<\1+1>.0",
    r"stem_(\d)\.bn": r"conv<\1+1>.1",
    r"blocks_([0-2])\.": r"entry.\1.",
    r"blocks_19\.": "exit.0.",
    r"blocks_20\.": "exit.1.",
    r"blocks_(\d+)\.": r"middle.<\1-3>.",
    r"shortcut\.conv": "shortcut.0",
    r"shortcut\.bn": "shortcut.1",
    r"stack\.(conv\d)\.": r"\1.",
    "conv_dw": "depthwise",
    "bn_dw": "bn1",
    "conv_pw": "pointwise",
    "bn_pw": "bn2",
}


def ours_of_timm_xception(name: str) -> str:
    for pattern, replacement in TIMM_XCEPTION.items():
        name = re.sub(pattern, replacement, name)
        name = re.sub(r"<(\d+)([+-]\d)>", lambda found: str(int(found[1]) + int(found[2])), name)
    return name


class Trunk(nn.Module):
    """Xception from RGB in [0, 1] to its last map."""

    def __init__(self, backbone: Xception) -> None:
        super().__init__()
        self.normalize, self.backbone = Normalize(backbone.mean, backbone.std), backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(self.normalize(images))[-1]


def timm_xception(ours: Trunk) -> nn.Module:
    peer: nn.Module = timm.create_model("xception65", features_only=True, output_stride=16, out_indices=[4])
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # as in the published weights
    weights = ours.backbone.state_dict()
    peer.load_state_dict({name: weights[ours_of_timm_xception(name)] for name in peer.state_dict()})
    return peer


def classifier(name: str) -> nn.Module:
    model = build_model(name, 1000)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)  # a zero gamma would hide what its block computes
    return model


def loaded(peer: nn.Module, ours: nn.Module) -> nn.Module:
    peer.load_state_dict(ours.state_dict())
    return peer


def pairs() -> Iterator[tuple[str, nn.Module, nn.Module, int]]:
    """Title, our model, the peer with our weights, side of the image."""
    ours = classifier("resnest50")
    yield "ResNeSt-50, 224 x 224, against timm resnest50d", ours, loaded(timm.create_model("resnest50d"), ours), 224
    ours = classifier("resnet50")
    yield "ResNet-50, 224 x 224, against torchvision", ours, loaded(torchvision.models.resnet50(), ours), 224
    trunk = Trunk(xception65(output_stride=16))
    yield "Xception-65 trunk, stride 16, 257 x 257, against timm", trunk, timm_xception(trunk), 257


def last(outputs: object) -> Tensor:
    if isinstance(outputs, dict):
        return outputs["class_logits"]
    found = outputs[-1] if isinstance(outputs, list) else outputs
    assert isinstance(found, Tensor)
    return found


def run(model: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return last(model(images))


def main() -> None:
    torch.manual_seed(0)
    for title, ours, peer, side in pairs():
        images = torch.rand(1, 3, side, side)
        normalize = ours.normalize
        assert isinstance(normalize, Normalize)
        calls: dict[str, Callable[[], object]] = {}
        for name, memory_format in FORMATS.items():
            for whose, model, given in (("Veduta", ours, images), ("peer", peer, normalize(images))):
                laid_out = copy.deepcopy(model).eval().to(memory_format=memory_format)  # type: ignore[call-overload]
                calls[whose + name] = partial(run, laid_out, given.contiguous(memory_format=memory_format))
        expected = run(ours.eval(), images)
        for call in calls.values():
            torch.testing.assert_close(call(), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
        print(f"\n{title}")
        rounds: list[Round] = [calls] * (ROUNDS + WARMUP)
        compare(rounds, warmup=WARMUP)


if __name__ == "__main__":
    main()
