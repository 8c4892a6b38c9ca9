"""The demonstration: generated street scenes, about a minute on two cores."""

from veduta.config import Augment, Data, Loss, Optim, Recipe


def demo() -> Recipe:
    """A tiny DeepLabV3+ on generated street scenes: `make demo` or `veduta demo`; two cores, about a minute."""
    return Recipe(
        name="demo",
        model="deeplabv3plus_tiny",
        data=Data(
            dataset="scenes",
            crop_size=(161, 193),
            batch_size=8,
            in_memory=True,
            augment=Augment(scale=(0.8, 1.5), focus=0.5, brightness=0.2, contrast=0.2),
        ),
        optim=Optim(name="adamw", lr=5e-3, schedule="cosine", warmup_steps=30, weight_decay=0.01, ema_decay=0.99),
        loss=Loss(class_weights="log"),
        steps=450,
        device="cpu",
        validate_every=150,
    )
