"""CamVid on two CPU cores, from scratch, in less than half an hour."""

from veduta.config import Augment, Data, Keep, Loss, Optim, Recipe


def camvid_cpu() -> Recipe:
    """A small DeepLabV3+ of separable convolutions on CamVid at 360x480, 11 classes.

    veduta train camvid-cpu --data CamVid --devices 2 --out runs/camvid-cpu
    Two cores of 2.5 GHz with AVX-512, shared with other work: 31 minutes, 43 of CPU time; test mIoU 52.7, or 51.4 with
    protocol=whole (docs/results.md).
    """
    return Recipe(
        name="camvid-cpu",
        model="deeplabv3plus_small",
        data=Data(
            dataset="camvid",
            crop_size=(161, 225),
            batch_size=6,
            in_memory=True,
            augment=Augment(
                scale=(0.6, 1.5), focus=0.5, brightness=0.3, contrast=0.3, saturation=0.3, tint=0.1, gamma=0.2
            ),
        ),
        optim=Optim(
            name="adamw",
            lr=4e-3,
            schedule="cosine",
            warmup_steps=150,
            weight_decay=0.02,
            ema_decay=0.998,
            clip_norm=5.0,
        ),
        loss=Loss(class_weights="log", auxiliary=0.4, dice=0.5),
        steps=3300,
        protocol="mirrored",
        validate_every=1100,
        keep=Keep(every=275),
    )
