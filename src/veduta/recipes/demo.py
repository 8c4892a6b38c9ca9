"""The demonstration: generated street scenes, about a minute on two cores."""

from veduta.config import Augment, Data, Loss, Optim, Recipe


def demo() -> Recipe:
    """`make demo`, or `veduta demo`: no data needed. Two cores, about a minute."""
    return Recipe(
        name="demo",
        model="deeplabv3plus_tiny",
        data=Data(
            dataset="scenes",
            crop_size=(160, 192),
            batch_size=8,
            in_memory=True,
            augment=Augment(scale=(0.7, 1.4), brightness=0.2, contrast=0.2),
        ),
        optim=Optim(name="adamw", lr=4e-3, schedule="cosine", warmup_steps=10, weight_decay=0.01, ema_decay=0.98),
        loss=Loss(class_weights="log"),
        steps=150,
        device="cpu",
        validate_every=50,
    )
