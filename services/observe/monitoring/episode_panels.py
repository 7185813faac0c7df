"""Panels of episodes: why they end, how many turns they take, where their time goes, what their tools do."""

from __future__ import annotations

from rayzero.services.observe.monitoring.panels import Panel, quantile, rate, share

NEEDS = "an environment"

EPISODES: tuple[Panel, ...] = (
    Panel(
        "Episodes by end",
        ((share("episodes_total", "end"), "{{run}} {{end}}"),),
        "percentunit",
        stack=True,
        needs=NEEDS,
        help="`environment_error` is an error, never a reward of 0.",
    ),
    Panel(
        "Turns of an episode",
        ((quantile(0.5, "episode_turns"), "{{run}} p50"), (quantile(0.95, "episode_turns"), "{{run}} p95")),
        needs=NEEDS,
    ),
    Panel(
        "Time of an episode",
        (
            (quantile(0.5, "episode_seconds", "run, where"), "{{run}} {{where}} p50"),
            (quantile(0.95, "episode_seconds", "run, where"), "{{run}} {{where}} p95"),
        ),
        "s",
        needs=NEEDS,
        help="More in the environment than in the engine: `rayzero scale environment=4`.",
    ),
    Panel("Tool calls a second", ((rate("tool_calls_total", "run, outcome"), "{{run}} {{outcome}}"),), needs=NEEDS),
    Panel(
        "Forks a second by reason",
        ((rate("episode_forks_total", "run, reason"), "{{run}} {{reason}}"),),
        needs="an environment, and a template that rewrites history",
    ),
)
