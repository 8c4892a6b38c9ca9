"""The demonstration: boxes and masks on generated street scenes, about a minute and a half on two cores."""

from veduta.config import Augment, Data, Loss, Optim, Recipe


def demo() -> Recipe:
    """A tiny BlitzNet on generated street scenes: `make demo` or `veduta demo`; two cores, a minute and a half."""
    return Recipe(
        name="demo",
        model="blitznet_tiny",
        model_options={"image_size": 256, "stride4": False},
        task="detect_segment",
        data=Data(
            dataset="scenes",
            crop_size=(192, 256),
            batch_size=8,
            in_memory=True,
            augment=Augment(scale=(0.9, 1.8), focus=0.5, brightness=0.2, contrast=0.2),
        ),
        optim=Optim(
            name="adamw",
            lr=6e-3,
            schedule="cosine",
            warmup_steps=20,
            weight_decay=0.01,
            ema_decay=0.98,
            clip_norm=5.0,
        ),
        loss=Loss(dice=0.5),
        steps=450,
        device="cpu",
        validate_every=150,
    )
