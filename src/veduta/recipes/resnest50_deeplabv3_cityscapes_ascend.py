"""DeepLabV3 on ResNeSt-50, Cityscapes, as far as the README of the TensorFlow port for Ascend tells."""

from dataclasses import replace

from veduta.config import Keep, Recipe
from veduta.recipes.resnest50_deeplabv3_cityscapes import resnest50_deeplabv3_cityscapes

EPOCH = 247  # steps: 2975 images in whole batches of 12


def resnest50_deeplabv3_cityscapes_ascend() -> Recipe:
    """The Cityscapes recipe with the Ascend port's 7x7 image pooling, batch 12, rate 1e-5, 500 epochs, one device.

    veduta import resnest50-528c19ca.pth --out resnest50.safetensors
    veduta train resnest50-deeplabv3-cityscapes-ascend --data cityscapes --init resnest50.safetensors --out runs/cs-a
    Cost: not published. Expect 66.45 mIoU (Ascend) or 63.38 (8 GPUs). The source of the port is not public: what its
    README does not tell (optimizer, crop, augmentation) is that of resnest50-deeplabv3-cityscapes. A rate of 1e-5 is
    small for SGD; this recipe is for comparing with the port, not for the best score.
    """
    recipe = resnest50_deeplabv3_cityscapes()
    return replace(
        recipe,
        name="resnest50-deeplabv3-cityscapes-ascend",
        model_options={"pool_window": 7},
        data=replace(recipe.data, batch_size=12),
        optim=replace(recipe.optim, lr=1e-5),
        steps=500 * EPOCH,
        validate_every=20 * EPOCH,
        keep=Keep(every=2 * EPOCH),
    )
