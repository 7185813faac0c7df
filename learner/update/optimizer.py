"""AdamW on fp32 master weights, and the learning rate as a function of the update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from rayzero.learner.model.policy import Policy
from rayzero.learner.model.ranks import full, shard_like
from rayzero.learner.update.loss_scale import LossScale
from rayzero.services.schema.config.learner import OptimizerSettings


class MasterOptimizer:
    """Collects gradients in fp32, steps the masters and writes them back to the policy's working copy."""

    def __init__(self, policy: Policy, settings: OptimizerSettings) -> None:
        self.loss_scale = LossScale(policy.dtype)
        self._computed = policy.computed
        self._pairs: list[tuple[str, torch.nn.Parameter, Tensor]] = []
        for name, parameter in policy.named_parameters():
            master = policy.masters.get(name)
            if master is None:
                self._pairs.append((name, parameter, parameter))
            else:
                self._pairs.append((name, parameter, master))
                hook = _accumulate_into(master, torch.zeros_like(master))
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]
        self.begin(settings)

    def begin(self, settings: OptimizerSettings) -> None:
        """Start AdamW afresh with these settings, from the weights of now: no moment of before is left."""
        self._settings = settings
        self._adam: Any = torch.optim.AdamW(
            [
                {"params": [m for _, _, m in self._pairs if m.ndim >= 2], "weight_decay": settings.weight_decay},
                {"params": [m for _, _, m in self._pairs if m.ndim < 2], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.eps,
            fused=True,
        )

    def zero_grad(self) -> None:
        """Forget the gradient."""
        for _, parameter, master in self._pairs:
            parameter.grad = None
            master.grad = None

    def gradients(self) -> list[Tensor]:
        """The masters' gradients, fp32. A parameter that took no part counts as zero, not as absent."""
        for _, _, master in self._pairs:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
        return [master.grad for _, _, master in self._pairs if master.grad is not None]

    def grad_norm(self) -> float:
        """Global L2 norm of the gradient."""
        return float(full(torch.nn.utils.get_total_norm(self.gradients())))

    @property
    def has_moments(self) -> bool:
        """Whether a step was made: before that a gradient of 0 would move weights by their decay alone."""
        return bool(self._adam.state)

    @torch.no_grad()
    def settle(self) -> bool:
        """Divide the gradient by the loss's scale. False: it overflowed, is forgotten, and is to be computed again at
        half the scale. To be asked once all micro-batches of a step are through."""
        if not self.loss_scale.is_used:
            return True
        torch._foreach_div_(self.gradients(), self.loss_scale.value)
        if math.isfinite(self.grad_norm()):
            self.loss_scale.grow()
            return True
        if not self.loss_scale.halve():
            return True
        self.zero_grad()
        return False

    @torch.no_grad()
    def step(self, learning_rate: float, grad_norm: float) -> None:
        """Clip to `max_grad_norm`, step the masters, refresh the working copy, forget the gradient."""
        gradients = self.gradients()
        excess = max(1.0, (grad_norm + 1e-6) / self._settings.max_grad_norm)
        if isinstance(gradients[0], DTensor):
            torch._foreach_div_(gradients, excess)
        else:
            # The fused kernel divides by it on its way through the gradient: no pass of its own for clipping.
            self._adam.grad_scale = torch.tensor(excess, device=gradients[0].device)
        for group in self._adam.param_groups:
            group["lr"] = learning_rate
        self._adam.step()
        for _, parameter, master in self._pairs:
            if parameter is not master:
                parameter.copy_(self._computed(master))
        self.zero_grad()

    def state_dict(self, keep: Callable[[Tensor], Any]) -> dict[str, Any]:
        """Masters and moments for a bit-exact resume. `keep` takes each in turn, and says what stands in its place."""
        adam = self._adam.state_dict()
        adam["state"] = {
            index: {name: keep(value) for name, value in moments.items()} for index, moments in adam["state"].items()
        }
        state: dict[str, Any] = {"masters": {name: keep(master) for name, _, master in self._pairs}, "adam": adam}
        return state | ({"loss_scale": self.loss_scale.state_dict()} if self.loss_scale.is_used else {})

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore rank 0's `state_dict`, its tensors in place; working copy included. Nothing of `state` is kept."""
        for name, parameter, master in self._pairs:
            master.copy_(shard_like(state["masters"][name], master))
            if parameter is not master:
                parameter.copy_(self._computed(master))
        if self.loss_scale.is_used:
            self.loss_scale.load_state_dict(state["loss_scale"])
        adam = dict(state["adam"])
        masters = [master for group in self._adam.param_groups for master in group["params"]]
        adam["state"] = {
            index: {
                # The count of steps is a scalar, and every rank's own.
                name: shard_like(value, masters[index]) if value.ndim else value.clone()
                for name, value in moments.items()
            }
            for index, moments in adam["state"].items()
        }
        self._adam.load_state_dict(adam)


def learning_rate(update: int, num_updates: int, settings: OptimizerSettings) -> float:
    """Rate of update 0, 1, ... of a run: a linear warm-up to the peak, then the decay down to `floor` x peak.

    The first warm-up update already has peak / warmup_updates; the last update of the run has the floor.
    """
    if update < settings.warmup_updates:
        return settings.learning_rate * (update + 1) / settings.warmup_updates
    last = max(num_updates - 1 - settings.warmup_updates, 1)
    progress = min((update - settings.warmup_updates) / last, 1.0)
    falling = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[settings.decay]
    floor = 1.0 if settings.decay == "constant" else settings.floor
    return settings.learning_rate * (floor + (1.0 - floor) * falling)


def _accumulate_into(master: Tensor, buffer: Tensor) -> Any:
    def hook(parameter: Tensor) -> None:
        assert parameter.grad is not None
        # Sum in fp32 across micro-batches, and give the bf16 gradient back at once.
        if master.grad is None:
            # One buffer for the whole run: fresh memory costs four times the copy itself on CPU.
            master.grad = buffer.copy_(parameter.grad)
        else:
            master.grad.add_(parameter.grad.to(master.device).float())
        parameter.grad = None

    return hook
