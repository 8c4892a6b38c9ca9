"""DeepLabV3+ on Xception-65, PASCAL VOC 2012 trainval: the Ascend port's command for tensorflow/models' DeepLab."""

from veduta.config import Augment, Data, Keep, Optim, Recipe


def deeplabv3plus_xception65_voc() -> Recipe:
    """DeepLabV3+ on Xception-65 at output stride 16, VOC 2012 trainval at 513x513, from COCO weights.

    veduta import x65-b2u1s2p-d48-2-3x256-sc-cr300k_init.ckpt --out x65-coco.safetensors
    veduta train deeplabv3plus-xception65-voc --data VOCdevkit/VOC2012 --init x65-coco.safetensors --out runs/deeplab
    One device, batch 16; on more, set data.batch_size to 16 / devices: BatchNorm's frozen statistics know no batch.
    bf16 (--set precision=bf16) is our advice where a GPU has it.
    Cost: the port reports 27 hours for 200,000 steps of 7 images on an Ascend 910 (14.4 images/s), so 62 hours for
    these. Expect 87.72 test mIoU (its step 90,660), with --set protocol=deeplab-multiscale --set
    model_options.output_stride=8. Validation images are among the training images: the scores while training say only
    that it learns. Every 10,000th checkpoint stays, for a sweep.
    """
    return Recipe(
        name="deeplabv3plus-xception65-voc",
        model="deeplabv3plus_xception65",
        model_options={"output_stride": 16},
        data=Data(
            dataset="voc",
            train_split="trainval",
            crop_size=(513, 513),
            batch_size=16,
            workers=8,
            augment=Augment(pipeline="deeplab", scale=(0.5, 2.0)),
        ),
        optim=Optim(
            lr=1e-4,  # the default, which the port's command leaves as it is; its text says 0.001
            weight_decay=4e-5,
            weight_decay_on="full-kernels",
            lr_multipliers={"head.bias": 2},
        ),
        steps=200_000,
        frozen_statistics=True,
        protocol="deeplab",
        validate_every=10_000,
        keep=Keep(every=1000, multiples=10_000),
    )
