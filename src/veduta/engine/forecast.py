"""What a whole run will take, computed from what a few of its steps took."""

from dataclasses import dataclass

from veduta.config import Recipe
from veduta.engine.checkpoints import NEWEST
from veduta.engine.progress import duration


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Measured: seconds of the start, of a step, of a validation over the whole split and of writing a checkpoint.

    waited: share of a step spent waiting for data, 0..1. memory_mb: largest use of one device. scored: the images whose
    time gave that of a validation, and those of the split.
    """

    recipe: Recipe
    device: str
    devices: int
    start: float
    step: float
    waited: float
    memory_mb: int
    validation: float
    scored: tuple[int, int]
    save: float
    checkpoint_bytes: int
    model_bytes: int
    free_bytes: int

    @property
    def validated_after(self) -> set[int]:
        """Steps with a validation."""
        every = self.recipe.validate_every or self.recipe.steps
        return {*range(every, self.recipe.steps + 1, every), self.recipe.steps}

    @property
    def saved_after(self) -> set[int]:
        """Steps with a checkpoint."""
        every = self.recipe.keep.every
        return self.validated_after | (set(range(every, self.recipe.steps + 1, every)) if every else set())

    @property
    def whole(self) -> float:
        """Seconds of the whole run."""
        training = self.recipe.steps * self.step
        return self.start + training + len(self.validated_after) * self.validation + len(self.saved_after) * self.save

    @property
    def disk_bytes(self) -> int:
        """Checkpoints that stay, the one that is being written, and the best model."""
        multiples = self.recipe.keep.multiples
        staying = {step for step in self.saved_after if multiples and step % multiples == 0}
        staying |= set(sorted(self.saved_after)[-NEWEST:])
        return (len(staying) + 1) * self.checkpoint_bytes + self.model_bytes

    def text(self) -> str:
        """A table for people."""
        recipe, (images, split) = self.recipe, self.scored
        batch_size = recipe.data.batch_size * recipe.accumulate
        measured = "" if images == split else f"; from {images:,} of {split:,} images"
        several = f" {self.devices} x" if self.devices > 1 else ""
        rows = [
            (
                "step",
                f"{self.step:.3g} s, {batch_size / self.step:.4g} images/s per device; {100 * self.waited:.0f} % of it "
                "waiting for data",
            ),
            ("training", f"{recipe.steps:,} steps  {duration(recipe.steps * self.step)}"),
            ("validation", f"{_times(len(self.validated_after), self.validation)}{measured}"),
            ("checkpoints", f"{_times(len(self.saved_after), self.save)}; {self.checkpoint_bytes / 1e6:,.1f} MB each"),
            ("disk", f"{self.disk_bytes / 1e9:.2f} GB at most; {self.free_bytes / 1e9:.0f} GB are free here"),
            ("memory", f"{self.memory_mb / 1024:.2f} GB per device at most"),
            ("whole run", duration(self.whole)),
        ]
        title = f"forecast for {recipe.name} on{several} {self.device}, {recipe.precision}"
        return "\n".join([title, *(f"  {name:12} {value}" for name, value in rows)])


def _times(count: int, seconds: float) -> str:
    return f"{count:,} x {seconds:.3g} s  {duration(count * seconds)}"
