"""Learning-rate curves of the published systems, each as a function of the step."""

import math

from veduta.config import Optim


def learning_rate(optim: Optim, step: int, steps: int) -> float:
    """Rate of step 0..steps-1: the warm-up, then the curve that `optim.schedule` names."""
    step = min(step, steps)  # every curve stays where it ends
    if step < optim.warmup_steps:
        return _warm_up(optim, step)
    rest = max(1, steps - optim.warmup_steps)
    progress = (step - optim.warmup_steps) / rest
    match optim.schedule:
        case "poly":
            factor = (1 - progress) ** 0.9
        case "cosine":
            factor = _half_cosine(progress)
        case "epoch-cosine":
            factor = _half_cosine(step // optim.hold_steps * optim.hold_steps / steps)
        case "damped-cosine":
            factor = (steps - step) / rest * _half_cosine(2 * 0.47 * step / rest) + 1e-5
        case "staircase":
            factor = optim.decay_factor ** (step // optim.hold_steps)
        case "milestones":
            factor = optim.decay_factor ** sum(step > milestone for milestone in optim.milestones)
    return optim.lr * factor


def _warm_up(optim: Optim, step: int) -> float:
    match optim.warmup:
        case "linear":
            return optim.lr * (step + 1) / optim.warmup_steps
        case "linear-from-0":
            return optim.lr * step / optim.warmup_steps
        case "constant":
            return optim.warmup_lr


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))
