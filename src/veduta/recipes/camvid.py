"""CamVid on one GPU, from scratch."""

from veduta.config import Augment, Data, Keep, Loss, Optim, Recipe


def camvid() -> Recipe:
    """DeepLabV3+ on ResNeSt-50 at output stride 16, 360x480, 11 classes.

    veduta train camvid --data CamVid --out runs/camvid
    Cost and score: not measured yet; aim 70 test mIoU. docs/results.md says what was run.
    """
    return Recipe(
        name="camvid",
        model="deeplabv3plus_resnest50",
        data=Data(
            dataset="camvid",
            crop_size=(360, 480),
            batch_size=12,
            workers=8,
            augment=Augment(scale=(0.5, 2.0), brightness=0.4, contrast=0.4, saturation=0.4, tint=0.1, gamma=0.25),
        ),
        optim=Optim(name="adamw", lr=1e-3, schedule="cosine", warmup_steps=1000, weight_decay=0.05, ema_decay=0.999),
        loss=Loss(class_weights="log"),
        steps=20_000,
        precision="bf16",
        validate_every=1000,
        keep=Keep(every=500),
    )
