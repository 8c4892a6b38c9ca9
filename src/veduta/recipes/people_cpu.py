"""Where the person is, as a box and as a mask, on two CPU cores, from scratch, in less than half an hour."""

from veduta.config import Augment, Data, Keep, Loss, Optim, Recipe


def people_cpu() -> Recipe:
    """A small BlitzNet on 360 photos that show one person each.

    veduta train people-cpu --data coco-person --devices 2 --out runs/people-cpu
    Two cores of 2.5 GHz with AVX-512, shared with other work: 24 minutes, 289 epochs. On the 90 photos of val AP50 56.7
    and mIoU 62.9 (docs/results.md).
    """
    return Recipe(
        name="people-cpu",
        model="blitznet_small",
        task="detect_segment",
        data=Data(
            dataset="voc",
            crop_size=(128, 128),
            batch_size=8,
            in_memory=True,
            augment=Augment(scale=(0.28, 0.65), brightness=0.3, contrast=0.3, saturation=0.3, tint=0.1, gamma=0.2),
        ),
        optim=Optim(
            name="adamw",
            lr=7e-3,
            schedule="cosine",
            warmup_steps=200,
            weight_decay=0.05,
            ema_decay=0.999,
            clip_norm=5.0,
        ),
        loss=Loss(dice=0.5),
        steps=6500,  # scored once, at the end, so that no checkpoint is chosen by these few photos
        keep=Keep(every=250),
    )
