"""The run's connection to Ray: a local one is started and ended with it, a cluster is joined and left.

A local Ray lives in a private temporary directory that goes with the run, and answers this run alone
(services/fleet/local_ray.py); a cluster that was there before is left as it was found.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private import worker as ray_worker

from rayzero.services.fleet.local_ray import RAY_FOLDER, SYSTEM_CONFIG, end_processes_of, on_loopback, token_required
from rayzero.services.fleet.placement_groups import give_back_gpus
from rayzero.services.run.interrupts import held_from_children
from rayzero.services.run.open_files import raise_open_files
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.errors import ActorStartError
from rayzero.services.schema.reports import send_no_reports
from rayzero.services.schema.temporary import own_folder, remove_dead_folders

logger = logging.getLogger(__name__)

START_ATTEMPTS = 2
"""Of the local Ray: on a machine that is busy its 30 s may not be enough."""


class RaySession:
    """A connection to Ray: local and private, or to a running cluster."""

    def __init__(self, recipe: Recipe) -> None:
        """Nothing is started before `start`."""
        self.recipe = recipe
        self._temporary: Path | None = None
        self._is_guest = False
        self._local = contextlib.ExitStack()
        """What a local Ray needs around it for as long as it lives."""

    def start(self) -> None:
        """Connect; where this process is connected already, use that.

        Raises:
            ActorStartError: no Ray there, or it would not start; with the cause.
        """
        cluster = self.recipe.cluster
        # A pipeline's stages use the pipeline's connection; the one who made it ends it.
        self._is_guest = ray.is_initialized()
        if self._is_guest:
            return
        raise_open_files()
        send_no_reports()
        log_what_ray_prints()
        for attempts_left in reversed(range(START_ATTEMPTS)):
            try:
                if cluster.address is not None:
                    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
                else:
                    self._start_local()
                return
            except Exception as error:  # Ray raises a bare Exception when its node is not up within 30 s
                self.stop()
                if attempts_left and cluster.address is None:
                    continue
                where = f"at {cluster.address}" if cluster.address else "on this machine"
                busy = "; the machine is too busy: end what else runs there, and repeat the command" if (
                    "timed out during startup" in str(error)
                ) else ""  # fmt: skip
                raise ActorStartError(f"Ray {where} cannot be reached or started: {error}{busy}") from None

    def stop(self) -> None:
        """Disconnect; a local Ray ends with everything in it, its directory included. Reserved GPUs are given back."""
        give_back_gpus()
        if self._is_guest:
            return
        with contextlib.suppress(Exception):
            ray.shutdown()
        if self._temporary is not None:
            end_processes_of(self._temporary)
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
            remove_dead_folders()  # of the rollout workers: Ray kills them
        self._local.close()

    def _start_local(self) -> None:
        self._local.enter_context(token_required())
        self._temporary = own_folder()
        with on_loopback(), held_from_children():
            ray.init(
                address="local",  # also where RAY_ADDRESS names a cluster: the recipe names none
                num_cpus=self.recipe.cluster.num_cpus or max(os.cpu_count() or 1, required_cpus(self.recipe)),
                resources=_named_resources(self.recipe),
                object_store_memory=self.recipe.cluster.object_store_bytes,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(self._temporary / RAY_FOLDER),
                _system_config=SYSTEM_CONFIG,
            )


def log_what_ray_prints() -> None:
    """Ray's own words on a process that is gone go to the log: on a terminal they look like the end of a run, which has
    another worker by then and says so itself. Ray has no setting for them."""
    if hasattr(ray_worker, "print_to_stdstream"):
        ray_worker.print_to_stdstream = _to_log


def _to_log(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    for line in data.get("lines", ()):
        logger.warning("ray: %s", line)


def required_cpus(recipe: Recipe) -> int:
    """CPUs that a local Ray must offer for every actor of the recipe to be placed."""
    return recipe.cluster.learner_gpus + recipe.rollout.max_workers


def _named_resources(recipe: Recipe) -> dict[str, float]:
    """A local Ray has every named resource the recipe asks for, as often as it may be asked."""
    cluster = recipe.cluster
    wanted = [
        *cluster.rollout_resources,
        *cluster.reward_resources,
        *cluster.environment_resources,
        *cluster.learner_resources,
    ]
    return dict.fromkeys(wanted, 1000.0)
