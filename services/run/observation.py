"""A run as it is watched: meters, trackers, events, the rollout index, and the API that shows them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from rayzero.services.observe.api.events import EventLog
from rayzero.services.observe.api.run_view import RunView
from rayzero.services.observe.api.server import serve
from rayzero.services.observe.browse.rollout_index import RolloutIndex
from rayzero.services.observe.browse.rollout_tokens import TokenTexts
from rayzero.services.observe.monitoring.meters import Meters
from rayzero.services.observe.monitoring.trackers import open_trackers
from rayzero.services.schema.config.recipe import Recipe
from rayzero.services.schema.version import version
from rayzero.services.store.run_directory import RunDirectory


@asynccontextmanager
async def watch(
    recipe: Recipe, directory: RunDirectory, model_path: Path, phase: Callable[[], str]
) -> AsyncIterator[tuple[RunView, str | None]]:
    """The control view of a run, and the URL it is served at (None where the recipe says not to).

    Raises:
        RecipeError: the API's port is taken.
    """
    view = RunView(
        recipe=recipe,
        directory=directory,
        meters=Meters(recipe, directory.path, version()),
        events=EventLog(directory.file("events.jsonl"), recipe.observe.retention.event_bytes),
        index=RolloutIndex(directory.path),
        tokens=TokenTexts(directory, model_path),
        phase=phase,
        tracking=open_trackers(recipe, directory.path),
    )
    async with AsyncExitStack() as stack:
        stack.callback(view.index.close)
        stack.callback(view.tracking.close)
        url = await stack.enter_async_context(serve(view)) if recipe.observe.api.enabled else None
        yield view, url
        await view.say_goodbye()
