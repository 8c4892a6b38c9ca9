"""What can be imported: for every source, the networks it published and the rules that rename their tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from veduta.config import ProtocolName, TaskName
from veduta.legacy import names_blitznet, names_deeplab, names_refinenet, names_resnest
from veduta.legacy.mapping import Rule, dropped

RESNESTS = (
    "resnest14",
    "resnest26",
    "resnest50",
    "resnest101",
    "resnest200",
    "resnest269",
    "resnest50_fast_1s1x64d",
    "resnest50_fast_2s1x64d",
    "resnest50_fast_4s1x64d",
    "resnest50_fast_1s2x40d",
    "resnest50_fast_2s2x40d",
    "resnest50_fast_4s2x40d",
    "resnest50_fast_1s4x24d",
)


# BlitzNets by the number of their levels: model and stride4.
BLITZNETS = {
    7: (("blitznet300", True), ("blitznet512", False)),  # the published ones
    6: (("blitznet300", False),),
    8: (("blitznet512", True),),
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks of one source that share their rules.

    candidates: (name in MODELS, options) of each; where a name comes twice, the shapes decide. options: of all of them.
    task: what reads their outputs. protocol: how the source shows images and scores them, with one scale. head: our
    tensor whose first axis is the number of classes. zeros: pattern of our tensors that the source lacks and whose
    value is 0 there.
    """

    candidates: Sequence[tuple[str, Mapping[str, Any]]]
    rules: Sequence[Rule]
    task: TaskName
    protocol: ProtocolName
    head: str
    options: Mapping[str, Any] = field(default_factory=dict)
    zeros: str | None = None


def _plain(*names: str) -> list[tuple[str, dict[str, Any]]]:
    return [(name, {}) for name in names]


TRAINING_STATE = "dropped: state of the optimizer"
AVERAGE = "dropped: moving average; the raw weights were asked for"

# Tensors that training leaves beside the weights, per source.
_PYTORCH_STATE = (
    dropped(r"(?:optimizer|scheduler|lr_scheduler|scaler|amp)\..*", TRAINING_STATE),
    dropped(r"state_dict_ema\..*", AVERAGE),
)
_TENSORFLOW_STATE = (
    dropped(r".*/(?:Momentum|Adam|Adam_1|RMSProp|RMSProp_1|Adagrad)", TRAINING_STATE),
    dropped(r".*/ExponentialMovingAverage", AVERAGE),
    dropped(r"(?:.*/)?(?:global_step|beta[12]_power|learning_rate)", TRAINING_STATE),
)
_MINDSPORE_STATE = (
    dropped(r"(?:moments|moment1|moment2|accum|stat)\..*", TRAINING_STATE),
    dropped(
        r"momentum|learning_rate|global_step|step_num|epoch_num|loss_scale|scale_sense|beta[12]_power"
        r"|current_iterator_step|last_overflow_iterator_step",
        TRAINING_STATE,
    ),
)

IMPORTS: dict[str, Sequence[Family]] = {
    # zhanghang1989/ResNeSt
    "zhanghang": [
        Family(
            candidates=_plain(*RESNESTS),
            rules=(*_PYTORCH_STATE, *names_resnest.PYTORCH),
            task="classify",
            protocol="resnest",
            head="fc.weight",
        )
    ],
    # zhanghang1989/PyTorch-Encoding
    "encoding": [
        Family(
            candidates=[
                (f"deeplabv3_resnest{depth}", {"aux": aux}) for depth in (50, 101, 200, 269) for aux in (True, False)
            ],
            rules=(*_PYTORCH_STATE, *names_deeplab.ENCODING),
            task="segment",
            protocol="encoding",
            head="head.3.weight",
        )
    ],
    # huggingface/pytorch-image-models, where the names end in d and e; the same names and values as the authors'
    "timm": [
        Family(
            candidates=_plain(*RESNESTS[:6], "resnest50_fast_4s2x40d", "resnest50_fast_1s4x24d"),
            rules=(*_PYTORCH_STATE, *names_resnest.PYTORCH),
            task="classify",
            protocol="timm",
            head="fc.weight",
        )
    ],
    # pytorch/vision, whose evaluation is timm's: shorter side 256, central 224 x 224, bilinear
    "torchvision": [
        Family(
            candidates=_plain("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
            rules=(*_PYTORCH_STATE, *names_resnest.PYTORCH),
            task="classify",
            protocol="timm",
            head="fc.weight",
        ),
        Family(
            candidates=_plain("mobilenet_v2"),
            rules=(*_PYTORCH_STATE, *names_resnest.MOBILENET_V2),
            task="classify",
            protocol="timm",
            head="classifier.1.weight",
        ),
    ],
    # mindspore-ai/models
    "mindspore": [
        Family(
            candidates=_plain("resnest50", "resnest101", "resnest200"),
            rules=(*_MINDSPORE_STATE, *names_resnest.MINDSPORE),
            task="classify",
            protocol="resnest-mindspore",
            head="fc.weight",
            zeros=names_resnest.MINDSPORE_ZEROS,
        ),
        Family(
            candidates=_plain("refinenet_resnet50", "refinenet_resnet101", "refinenet_resnet152"),
            rules=(*_MINDSPORE_STATE, *names_refinenet.MINDSPORE),
            task="segment",
            protocol="refinenet",
            head="head.weight",
            options={"output_resize": "legacy", "same_pool": True, "dropout": 0.0},
        ),
    ],
    # tensorflow/models research/deeplab; dvornikita/blitznet
    "tensorflow": [
        Family(
            candidates=_plain("deeplabv3plus_xception65", "deeplabv3plus_xception41", "deeplabv3plus_xception71"),
            rules=(*_TENSORFLOW_STATE, *names_deeplab.XCEPTION),
            task="segment",
            protocol="deeplab",
            head="head.weight",
        ),
        Family(
            candidates=_plain("deeplabv3_mobilenet_v2"),
            rules=(*_TENSORFLOW_STATE, *names_deeplab.MOBILENET_V2),
            task="segment",
            protocol="deeplab",
            head="head.weight",
        ),
        *(
            Family(
                candidates=[
                    (name, {"stride4": stride4, "shared_head": shared})
                    for name, stride4 in pyramids
                    for shared in (False, True)
                ],
                rules=(*_TENSORFLOW_STATE, *names_blitznet.tensorflow(num_levels)),
                task="detect_segment",
                protocol="blitznet-voc12",
                head="mask_head.weight",
            )
            for num_levels, pyramids in BLITZNETS.items()
        ),
    ],
    # DrSleep/refinenet-pytorch
    "drsleep": [
        Family(
            candidates=_plain("refinenet_resnet101", "refinenet_resnet50", "refinenet_resnet152"),
            rules=(*_PYTORCH_STATE, *names_refinenet.DRSLEEP),
            task="segment",
            protocol="whole",
            head="head.weight",
        )
    ],
}


def importable_from(model: str) -> list[str]:
    """The sources whose checkpoints of `model` can be imported."""
    return [
        source
        for source, families in IMPORTS.items()
        if any(model == name for family in families for name, _ in family.candidates)
    ]


def alike(model: str, source: str) -> list[str]:
    """The sources whose checkpoints of `model` cannot be told from those of `source`."""
    rules = {s: [f.rules for f in families if model in dict(f.candidates)] for s, families in IMPORTS.items()}
    return [s for s in IMPORTS if rules[s] == rules[source]]
