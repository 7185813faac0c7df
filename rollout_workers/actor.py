"""The rollout worker as a Ray actor: its name, and a recipe's settings handed to the engine.

Spawned by services/run/placement.py with `runtime_env={"env_vars": engine_environment(recipe.rollout)}`: an engine's
environment must stand before its process starts.
"""

from __future__ import annotations

from rayzero.rollout_workers.engine_process import EngineSpec
from rayzero.rollout_workers.environment import engine_environment
from rayzero.rollout_workers.metrics_server import serve_metrics
from rayzero.rollout_workers.vllm_engine import RolloutEngine
from rayzero.services.schema.config.recipe import Recipe

__all__ = ["RolloutActor", "engine_environment"]


class RolloutActor(RolloutEngine):
    """Every method of `RolloutEngine` is a remote method; groups are generated side by side on the actor's loop."""

    def __init__(self, recipe: Recipe, model_path: str, name: str) -> None:
        """Cheap: `start` brings the engine up."""
        spec = EngineSpec(
            model_path=model_path,
            dtype=recipe.model.dtype,
            seed=recipe.seed % 2**32,
            settings=recipe.rollout,
            sleeps=recipe.cluster.takes_turns,
            weights_come_whole=recipe.learner.lora is None,
            routing_replay=recipe.learner.routing_replay,
        )
        super().__init__(name, spec, deadline_s=recipe.deadlines.sync_s)
        self._in_cluster = recipe.cluster.address is not None

    async def serve_metrics(self, local: bool) -> str:
        """Where Prometheus finds this engine's figures, as `host:port`; `local`: on this machine alone."""
        return serve_metrics(_host(local))

    async def serve_episodes(self) -> str:
        """As `RolloutEngine.serve_episodes`; in a cluster on the node's own address, for agents of other nodes."""
        return await self._endpoint.start(_host(local=not self._in_cluster))


def _host(local: bool) -> str:
    if local:
        return "127.0.0.1"
    import ray

    return str(ray.util.get_node_ip_address())
