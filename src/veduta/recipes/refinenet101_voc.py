"""RefineNet-101 on SBD, then on PASCAL VOC 2012, as its MindSpore port trains it: mindspore-ai/models."""

from dataclasses import replace

from veduta.config import Augment, Data, Keep, Optim, Recipe

SBD_EPOCH = 569  # steps: 9118 images in whole batches of 16
VOC_EPOCH = 91  # 1464 images

# The port means to freeze the first two stages; its flag reaches the first block of each.
FROZEN = [f"backbone.layer{stage}.0.{conv}" for stage in (1, 2) for conv in ("conv1", "conv2", "conv3", "downsample.0")]


def refinenet101_voc() -> Recipe:
    """RefineNet-101 at 513x513: 200 epochs of SBD without VOC's images, then 200 of VOC 2012 train; one RTX 3090.

    veduta import resnet101-63fe2227.pth --out resnet101.safetensors
    veduta train refinenet101-voc --data SBD --data VOCdevkit/VOC2012 --init resnet101.safetensors --out runs/refinenet
    Both stages in one run folder; the second starts from the first's weights. VOCdevkit must lie in the folder SBD or
    beside it: its lists say which images the first stage leaves out.
    fp16 as published; activations are large, so where they overflow take --set precision=bf16 --set loss_scale=0, and
    the same with then.precision and then.loss_scale.
    Cost: the port reports 0.722 s a step on an RTX 3090, so 22.8 hours and 3.6. Expect 80.05 mIoU on val with mirror.
    """
    first = Recipe(
        name="refinenet101-voc",
        model="refinenet_resnet101",
        model_options={"dropout": 0.0, "output_resize": "legacy", "same_pool": True},
        data=Data(
            dataset="sbd",
            train_split="minus_voc",
            crop_size=(513, 513),
            batch_size=16,
            workers=8,
            augment=Augment(pipeline="refinenet", scale=(0.5, 3.0)),  # the code; the README has 2.0
        ),
        optim=Optim(
            lr=0.001,
            schedule="cosine",
            weight_decay=5e-4,
            weight_decay_on="all",
            lr_multipliers=dict.fromkeys(FROZEN, 0),
        ),
        steps=200 * SBD_EPOCH,
        seed=1,
        precision="fp16",
        loss_scale=1024,
        frozen_statistics=True,
        protocol="refinenet",
        keep=Keep(every=2 * SBD_EPOCH),  # scored at the end only: most of SBD's val is trained on
    )
    second = replace(
        first,
        name="refinenet101-voc-2",
        data=replace(first.data, dataset="voc", train_split="train"),
        optim=replace(first.optim, lr=0.0001),
        steps=200 * VOC_EPOCH,
        validate_every=20 * VOC_EPOCH,
        keep=Keep(every=10 * VOC_EPOCH),
    )
    return replace(first, then=second)
