"""rayzero as a library: what a program of one's own imports, loaded when it is first asked for.

    import rayzero

    recipe = rayzero.load_recipe("deploy/recipes/demo.yaml", ["seed=1"])
    rayzero.verify(r"so \\boxed{\\frac{1}{2}}", "0.5").correct      # True
    rayzero.train("deploy/recipes/demo.yaml", ["training.num_updates=2"])

The four rooms lie beside this folder in a checkout and inside it once installed: `rayzero.services`,
`rayzero.rollout_workers`, `rayzero.rewards`, `rayzero.learner`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayzero.learner.model.policy import Policy as Policy
    from rayzero.learner.objective import losses as losses
    from rayzero.learner.update.learner import Learner as Learner
    from rayzero.rewards.math.verify import verify as verify
    from rayzero.rewards.rubric import Rubric as Rubric
    from rayzero.services.run.inference import evaluate as evaluate
    from rayzero.services.run.plan import check as check
    from rayzero.services.run.run import train as train
    from rayzero.services.schema import messages as messages
    from rayzero.services.schema.config.loader import load_recipe as load_recipe
    from rayzero.services.schema.config.recipe import Recipe as Recipe

_HOMES = {
    "Learner": "rayzero.learner.update.learner",
    "Policy": "rayzero.learner.model.policy",
    "Recipe": "rayzero.services.schema.config.recipe",
    "Rubric": "rayzero.rewards.rubric",
    "check": "rayzero.services.run.plan",
    "evaluate": "rayzero.services.run.inference",
    "load_recipe": "rayzero.services.schema.config.loader",
    "losses": "rayzero.learner.objective",
    "messages": "rayzero.services.schema",
    "train": "rayzero.services.run.run",
    "verify": "rayzero.rewards.math.verify",
}
"""Public name: the module that holds it, imported on first use: `import rayzero` needs no torch."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rayzero' has no attribute {name!r}; it offers {', '.join(__all__)}")
    home = import_module(_HOMES[name])
    if hasattr(home, name):
        return getattr(home, name)
    return import_module(f"{_HOMES[name]}.{name}")


def __dir__() -> list[str]:
    """The public names, for completion in a shell."""
    return sorted({*globals(), *__all__})
