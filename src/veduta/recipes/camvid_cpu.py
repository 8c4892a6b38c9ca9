"""CamVid on two CPU cores, from scratch, in less than half an hour."""

from veduta.config import Augment, Data, Loss, Optim, Recipe


def camvid_cpu() -> Recipe:
    """A small dense network on CamVid at 360x480, 11 classes.

    veduta train camvid-cpu --data CamVid --out runs/camvid-cpu
    """
    return Recipe(
        name="camvid-cpu",
        model="deeplabv3plus_small",
        data=Data(
            dataset="camvid",
            crop_size=(160, 224),
            batch_size=8,
            in_memory=True,
            augment=Augment(
                scale=(0.5, 1.6), focus=0.5, brightness=0.4, contrast=0.4, saturation=0.4, tint=0.1, gamma=0.25
            ),
        ),
        optim=Optim(name="adamw", lr=3e-3, schedule="cosine", warmup_steps=100, weight_decay=0.01, ema_decay=0.998),
        loss=Loss(class_weights="log", auxiliary=0.4),
        steps=4000,
        validate_every=500,
    )
