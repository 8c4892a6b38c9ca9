"""One optimizer step: forward, losses and backward of its batches, then clipping and the update; and all its state."""

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from veduta.config import Recipe
from veduta.data.batch import Batch, to_unit_range
from veduta.device import autocast, has_fused_optimizers, loss_scaler, place, seed_everything
from veduta.engine.optim import MovingAverage, build_optimizer
from veduta.engine.schedules import learning_rate
from veduta.engine.sync_batch_norm import synchronise
from veduta.ranks import rank, sum_over_ranks, world_size
from veduta.tasks import Task
from veduta.tasks.mixup import mix_batch

Losses = dict[str, Tensor]


class Step:
    """A model with everything that changes while it trains: weights, optimizer, loss scale, moving average.

    What a step draws at random depends on the run's seed, the step and the rank alone, so a run that stops and goes on
    needs no random state. Over several ranks each loss is normalised so that its mean over them is that of the whole
    batch.
    """

    def __init__(self, model: nn.Module, task: Task, recipe: Recipe, device: torch.device) -> None:
        self.task, self.recipe, self.device = task, recipe, device
        if recipe.sync_batch_norm and world_size() > 1:
            synchronise(model)
        self.model = place(model, device)
        self.optimizer = build_optimizer(model, recipe.optim, fused=has_fused_optimizers(device))
        self.scaler = loss_scaler(device, scale=recipe.loss_scale or 2.0**16, enabled=recipe.precision == "fp16")
        self.network: nn.Module = model
        if world_size() > 1:
            # An auxiliary head whose loss is switched off gets no gradients.
            unused = recipe.task == "segment" and not recipe.loss.auxiliary
            self.network = DistributedDataParallel(model, find_unused_parameters=unused, gradient_as_bucket_view=True)
        # After that: it copies the weights, which all processes now have from the first.
        self.average = MovingAverage(model, recipe.optim.ema_decay) if recipe.optim.ema_decay else None
        if recipe.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]

    @property
    def scored(self) -> nn.Module:
        """The model that is validated and saved: the moving average, where the recipe keeps one."""
        return self.average.model if self.average else self.model

    def __call__(self, batches: Sequence[Batch], step: int) -> Losses | None:
        """Train on the batches of step number `step` (from 1); scalar losses by name, averaged over the batches.

        None: the gradients were no numbers, and the recipe leaves such steps out.
        """
        recipe = self.recipe
        seed_everything(_seed_of(recipe.seed, step, rank()))
        rate = learning_rate(recipe.optim, step - 1, recipe.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
        set_training_mode(self.model, frozen_statistics=recipe.frozen_statistics)
        buffers = [buffer.clone() for buffer in self.model.buffers()] if recipe.not_finite == "skip" else []
        self.optimizer.zero_grad(set_to_none=True)
        parts, totals = [], []
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with contextlib.nullcontext() if last or world_size() == 1 else self.network.no_sync():  # type: ignore[operator]
                losses = self._losses(batch, step, number)
                total = torch.stack(list(losses.values())).sum() / len(batches)
                self.scaler.scale(total).backward()
            totals.append(total.detach())
            parts.append({name: loss.detach() for name, loss in losses.items()})
        if not self._update(totals, buffers):
            return None
        if self.average:
            self.average.update()
        if len(parts) == 1:
            return parts[0]
        return {name: torch.stack([losses[name] for losses in parts]).mean() for name in parts[0]}

    def _losses(self, batch: Batch, step: int, number: int) -> Losses:
        loss = self.recipe.loss
        batch = batch.to(self.device)
        images = to_unit_range(batch.images, self.device)
        if loss.mixup or loss.cutmix:
            rng = np.random.default_rng((self.recipe.seed, step, rank(), number))
            num_classes = self.task.labels.num_classes
            images, batch = mix_batch(images, batch, num_classes, mixup=loss.mixup, cutmix=loss.cutmix, rng=rng)
        with autocast(self.device, self.recipe.precision):
            return self.task.losses(self.network(images), batch)

    def _update(self, totals: list[Tensor], buffers: list[Tensor]) -> bool:
        """Clip and apply the gradients; False where they are left out and `buffers` are put back."""
        recipe = self.recipe
        if recipe.optim.clip_norm or recipe.not_finite == "skip":
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm = get_total_norm([p.grad for p in parameters])
            if recipe.not_finite == "skip" and self._is_broken(totals, norm):
                with torch.no_grad():
                    for own, before in zip(self.model.buffers(), buffers, strict=True):
                        own.copy_(before)
                self.scaler.update(recipe.loss_scale or None)
                return False
            if recipe.optim.clip_norm:
                clip_grads_with_norm_(parameters, recipe.optim.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update(recipe.loss_scale or None)
        return True

    def _is_broken(self, totals: list[Tensor], norm: Tensor) -> bool:
        """Whether a loss of any process is no number; or the gradients are none, unless their scale is the reason.

        It is awaited: a run that leaves such steps out is a little slower on an accelerator.
        """
        broken = ~torch.stack(totals).isfinite().all()
        if not self.scaler.is_enabled():
            broken = broken | ~norm.isfinite()
        return bool(sum_over_ranks(broken.float()))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors by name, and what fits into JSON: all but the weights that `scored` has."""
        optimizer = self.optimizer.state_dict()
        tensors, values = {}, {}
        for index, state in optimizer["state"].items():
            for name, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{index}/{name}"] = value
                elif value is not None:
                    values[f"{index}/{name}"] = value
        groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer["param_groups"]]
        if self.average:
            tensors |= {f"weights/{name}": value for name, value in self.model.state_dict().items()}
        return tensors, {
            "optimizer": {"state": values, "groups": groups},
            "scaler": self.scaler.state_dict(),
            "average_step": self.average.step if self.average else 0,
        }

    def restore(self, scored: dict[str, Tensor], tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from what `scored.state_dict()` and `state()` gave."""
        self.scored.load_state_dict(scored)
        if self.average:
            self.average.step = values["average_step"]
            weights = {name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")}
            self.model.load_state_dict(weights)
        state: dict[int, dict[str, Any]] = {}
        own = self.optimizer.state_dict()["param_groups"]
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for name, value in (tensors | values["optimizer"]["state"]).items():
            if name.startswith("weights/"):
                continue
            index, key = name.removeprefix("optimizer/").split("/")
            parameter = parameters[int(index)]
            if isinstance(value, Tensor) and value.shape == parameter.shape:  # in memory as the weights lie
                value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            state.setdefault(int(index), {})[key] = value
        here = ("params", "fused")  # what depends on the device, too
        groups = [
            {**saved, **{name: group[name] for name in here if name in group}}
            for saved, group in zip(values["optimizer"]["groups"], own, strict=True)
        ]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        # Some devices' scalers know more than the one that was saved, where a run goes on on another kind of device.
        self.scaler.load_state_dict({**self.scaler.state_dict(), **values["scaler"]})


def set_training_mode(model: nn.Module, *, frozen_statistics: bool) -> None:
    """`model.train()`; frozen BatchNorm normalises with its running statistics and does not update them."""
    model.train()
    if frozen_statistics:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # its scale and shift still get gradients


def _seed_of(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
