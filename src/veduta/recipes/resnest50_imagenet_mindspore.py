"""ResNeSt-50 on ImageNet as its MindSpore port trains it: mindspore-ai/models, research/cv/ResNeSt50."""

from veduta.config import Augment, Data, Keep, Loss, Optim, Recipe

EPOCH = 2502  # steps: 1,281,167 images in whole batches of 512


def resnest50_imagenet_mindspore() -> Recipe:
    """ResNeSt-50 on ImageNet from scratch, 224 pixels, 270 epochs: the MindSpore port on 8 GPUs of 24 GB.

    veduta train resnest50-imagenet-mindspore --data imagenet --devices 8 --out runs/resnest50-ms
    With fewer devices set accumulate to 8 / devices: a step stays 512 images, 64 at a time.
    Cost: the port reports 66.7 hours on 8 RTX 3090 (1440 images/s), 84.4 on 8 Ascend 910. Expect 81.08 top-1 (GPU),
    80.90 (Ascend), each of 49,984 images at 256 pixels. On Ascend its script forgets to scale the rate, which stays at
    0.025: --set optim.lr=0.025. Not the port's: how convolutions are initialised, and the biases of split attention,
    which it goes without.
    """
    return Recipe(
        name="resnest50-imagenet-mindspore",
        model="resnest50",
        task="classify",
        data=Data(
            dataset="imagenet",
            crop_size=(224, 224),
            batch_size=64,
            workers=12,
            augment=Augment(
                pipeline="imagenet", policy="randaugment-no-holes", brightness=0.4, contrast=0.4, saturation=0.4
            ),
        ),
        optim=Optim(
            lr=0.2,  # 0.025 for each of 8 GPUs
            schedule="epoch-cosine",
            hold_steps=EPOCH,
            warmup_steps=EPOCH,  # the code; the README has 5 epochs
            weight_decay=1e-4,
        ),
        loss=Loss(smoothing=0.1, smoothing_over="others"),
        steps=270 * EPOCH,
        seed=1,
        precision="fp16",  # with a scale that is found, as in the code; the README has 1024
        validate_every=10 * EPOCH,
        keep=Keep(every=EPOCH),
        protocol="resnest-mindspore",
    )
