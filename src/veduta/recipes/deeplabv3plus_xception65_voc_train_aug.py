"""DeepLabV3+ on Xception-65, PASCAL VOC 2012 train_aug: what tensorflow/models' DeepLab advises for it."""

from dataclasses import replace

from veduta.config import Keep, Recipe
from veduta.recipes.deeplabv3plus_xception65_voc import deeplabv3plus_xception65_voc


def deeplabv3plus_xception65_voc_train_aug() -> Recipe:
    """DeepLabV3+ on Xception-65 at output stride 16, VOC 2012 train_aug (10,582), rate 0.007, trained statistics.

    veduta import x65-b2u1s2p-d48-2-3x256-sc-cr300k_init.ckpt --out x65-coco.safetensors
    veduta train deeplabv3plus-xception65-voc-train-aug --data VOC2012 --init x65-coco.safetensors --out runs/aug
    VOC2012 (of VOCdevkit) needs SegmentationClassAug, SBD's masks as PNG. One device, batch 16 for BatchNorm's sake;
    train.py has 8 by default. On more devices set data.batch_size to 16 / devices and sync_batch_norm=true.
    Cost: 480,000 crops, 9 hours at the port's 14.4 images/s. Expect 82.20 val mIoU, one scale.
    """
    recipe = deeplabv3plus_xception65_voc()
    return replace(
        recipe,
        name="deeplabv3plus-xception65-voc-train-aug",
        data=replace(recipe.data, train_split="train_aug"),
        optim=replace(recipe.optim, lr=0.007),
        steps=30_000,  # the default of train.py
        frozen_statistics=False,
        validate_every=2000,
        keep=Keep(every=1000),
    )
