"""What is known of every model without building it: its size, and the score that its publishers report.

Multiply-accumulates are those of convolutions and linear layers (models/count.py) for one square image of `size`.
Scores are theirs, not ours: in percent, with the protocol where it is not one scale without mirror image.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """num_classes and size: of the published network. parameters: trainable values. source: who reports the score."""

    num_classes: int
    size: int
    parameters: int
    gmacs: float
    score: str = ""
    source: str = ""


RESNEST = "zhanghang1989/ResNeSt"
TORCHVISION = "torchvision, IMAGENET1K_V1"
TIMM = "timm"
DEEPLAB = "model zoo of tensorflow/models"
DRSLEEP = "DrSleep/refinenet-pytorch"

PUBLISHED = {
    "resnet18": Published(1000, 224, 11_689_512, 1.8141, "69.76 top-1", TORCHVISION),
    "resnet34": Published(1000, 224, 21_797_672, 3.6638, "73.31 top-1", TORCHVISION),
    "resnet50": Published(1000, 224, 25_557_032, 4.0892, "76.13 top-1", TORCHVISION),
    "resnet101": Published(1000, 224, 44_549_160, 7.8014, "77.37 top-1", TORCHVISION),
    "resnet152": Published(1000, 224, 60_192_808, 11.5136, "78.31 top-1", TORCHVISION),
    "resnest14": Published(1000, 224, 10_611_688, 2.7494, "75.52 top-1", TIMM),
    "resnest26": Published(1000, 224, 17_069_448, 3.6234, "78.48 top-1", TIMM),
    "resnest50": Published(1000, 224, 27_483_240, 5.3712, "81.03 top-1", RESNEST),
    "resnest101": Published(1000, 256, 48_275_016, 13.3215, "82.83 top-1", RESNEST),
    "resnest200": Published(1000, 320, 70_201_544, 35.5197, "83.84 top-1", RESNEST),
    "resnest269": Published(1000, 416, 110_929_480, 77.3487, "84.54 top-1", RESNEST),
    "resnest50_fast_1s1x64d": Published(1000, 224, 26_217_896, 4.3295, "80.33 top-1", RESNEST),
    "resnest50_fast_2s1x64d": Published(1000, 224, 27_483_240, 4.3307, "80.53 top-1", RESNEST),
    "resnest50_fast_4s1x64d": Published(1000, 224, 31_912_712, 4.3351, "80.76 top-1", RESNEST),
    "resnest50_fast_1s2x40d": Published(1000, 224, 25_946_680, 4.3646, "80.59 top-1", RESNEST),
    "resnest50_fast_2s2x40d": Published(1000, 224, 26_943_792, 4.3656, "80.61 top-1", RESNEST),
    "resnest50_fast_4s2x40d": Published(1000, 224, 30_417_592, 4.3691, "81.14 top-1", RESNEST),
    "resnest50_fast_1s4x24d": Published(1000, 224, 25_677_000, 4.3998, "80.99 top-1", RESNEST),
    "resnest_tiny": Published(10, 32, 983_850, 0.0186),
    "mobilenet_v2": Published(1000, 224, 3_504_872, 0.3008, "71.88 top-1", TORCHVISION),
    "deeplabv3_resnest50": Published(
        19,
        768,
        43_929_254,
        396.7322,
        "79.87 mIoU, Cityscapes val, 7 scales + mirror",
        "paper, as quoted by the Ascend port",
    ),
    "deeplabv3_resnest101": Published(19, 768, 64_721_030, 584.3970),
    "deeplabv3_resnest200": Published(
        19, 768, 86_647_558, 769.2166, "82.7 mIoU, Cityscapes val, with Mapillary, 7 scales + mirror", RESNEST
    ),
    "deeplabv3_resnest269": Published(19, 768, 127_375_494, 1113.1863),
    "deeplabv3_mobilenet_v2": Published(21, 513, 2_113_557, 2.7407, "75.32 mIoU, VOC val", DEEPLAB),
    "deeplabv3plus_xception41": Published(21, 513, 28_108_661, 40.0124),
    "deeplabv3plus_xception65": Published(
        21, 513, 41_055_413, 54.0353, "82.20 mIoU, VOC val; 87.80 test, stride 8, 6 scales + mirror", DEEPLAB
    ),
    "deeplabv3plus_xception71": Published(21, 513, 43_477_837, 66.0680),
    "deeplabv3plus_resnet50": Published(21, 513, 26_696_133, 39.5509),
    "deeplabv3plus_resnest50": Published(21, 513, 28_622_341, 44.4951),
    "deeplabv3plus_resnest101": Published(21, 513, 49_414_117, 70.9985),
    "deeplabv3plus_mobilenet_v2": Published(21, 513, 2_719_813, 5.8042),
    "deeplabv3plus_small": Published(21, 256, 721_346, 0.3824),
    "deeplabv3plus_tiny": Published(21, 256, 214_981, 0.2128),
    "refinenet_resnet50": Published(21, 512, 99_060_309, 243.5045),
    "refinenet_resnet101": Published(21, 512, 118_052_437, 262.8990, "80.5 mIoU, VOC val", DRSLEEP),
    "refinenet_resnet152": Published(
        21, 512, 133_696_085, 282.2934, "83.4 mIoU, VOC test, with COCO, multi-scale + CRF", "arXiv 1611.06612"
    ),
    "refinenet_tiny": Published(21, 256, 339_253, 0.2980),
    "blitznet300": Published(
        21, 300, 59_379_951, 15.9810, "80.0 mAP and 72.8 mIoU, VOC 2012 val", "paper, as quoted by the Ascend port"
    ),
    "blitznet512": Published(21, 512, 68_534_511, 27.2208),
    "blitznet_small": Published(21, 128, 1_184_387, 0.1209),
    "blitznet_tiny": Published(21, 128, 262_651, 0.1623),
}
