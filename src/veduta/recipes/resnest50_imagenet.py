"""ResNeSt on ImageNet as its authors train it in PyTorch: zhanghang1989/ResNeSt, scripts/torch/train.py."""

from veduta.config import Augment, Data, Keep, Loss, Optim, Recipe

EPOCH = 626  # steps: 1,281,167 images in batches of 2048


def resnest50_imagenet() -> Recipe:
    """ResNeSt-50 on ImageNet from scratch, 224 pixels, 270 epochs: the authors' PyTorch recipe, 32 GPUs.

    veduta train resnest50-imagenet --data imagenet --devices 8 --set accumulate=4 --out runs/resnest50
    A step is 2048 images, 64 at a time on a device: with accumulate = 2048 / (devices x batch_size) any number of
    devices makes the published run. bf16 (--set precision=bf16) is our advice where a GPU has it; published is fp32.
    Cost: 346 million images; the MindSpore port needs 66.7 hours for as many on 8 RTX 3090. Compare with 81.03 top-1,
    the score of the released weights; these come from the authors' Gluon training: Nesterov, AutoAugment, batch 8192.
    The family, each with the same rate since the batch stays 2048 (it is 0.1 for every 256 images):
      resnest101 (82.83): --set model=resnest101, and the crop that it is scored at: --set data.crop_size=[256,256]
      resnest200 (83.84): --set model=resnest200 --set data.crop_size=[256,256] --set data.batch_size=32
      resnest269 (84.54): --set model=resnest269 --set data.crop_size=[320,320] --set data.batch_size=32
      the fast ones (80.33 to 81.14): --set model=resnest50_fast_4s2x40d and so on
    200 is scored at 320 pixels, 269 at 416: veduta evaluate runs/resnest200 --set data.crop_size=[320,320]
    """
    return Recipe(
        name="resnest50-imagenet",
        model="resnest50",
        task="classify",
        data=Data(
            dataset="imagenet",
            crop_size=(224, 224),
            batch_size=64,
            workers=12,
            augment=Augment(
                pipeline="imagenet",
                area=(0.1, 1.0),
                crop_by="height",
                policy="randaugment",
                policy_first=True,
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                lighting=0.1,
            ),
        ),
        optim=Optim(
            lr=0.8,  # 0.025 for each of 32 GPUs
            schedule="cosine",
            warmup_steps=5 * EPOCH,
            warmup="linear-from-0",
            weight_decay=1e-4,
            weight_decay_on="names",
        ),
        loss=Loss(smoothing=0.1, mixup=0.2),
        steps=270 * EPOCH,
        validate_every=10 * EPOCH,
        keep=Keep(every=EPOCH),
        protocol="resnest",
    )
