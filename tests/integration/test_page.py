"""A finished run's page in a real browser: no text of a model ever runs; filters and comparison work."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rayzero.services.cli.samples import samples
from rayzero.services.observe.browse.rollout_index import Filter
from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.messages import ChatMessage, Group
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.rollout_file import rollout_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.browser import open_page
from tests.fakes import make_completion, make_group, make_recipe
from tests.hostile_cases import hostile_group as generated_group
from tests.system import needs

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [needs("chromium", "playwright"), pytest.mark.timeout(180)]

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<svg onload=document.title='owned'><a href=javascript:document.title='owned'>x</a>"
    "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>"
)


def hostile_group(number: int, version: int) -> Group:
    group = make_group(number, version=version)
    message = ChatMessage(role="user", content=f"{HOSTILE} {number}")
    prompt = dataclasses.replace(group.prompt, messages=(message,), answer=HOSTILE, prompt_id=f"{HOSTILE}{number}")
    rollouts = tuple(
        dataclasses.replace(
            rollout,
            completion=make_completion(version, text=f"{HOSTILE} at {version}"),
            verdict=dataclasses.replace(rollout.verdict, reason=HOSTILE, components={HOSTILE: 1.0}),
        )
        for rollout in group.rollouts
    )
    return dataclasses.replace(group, prompt=prompt, rollouts=rollouts, worker=HOSTILE)


@pytest.fixture
def page_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page of a run of five updates, each text of which is an attack."""
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe(num_updates=5))
    recorder = Recorder(directory)
    for update in range(1, 6):
        recorder.on_update({"update": update, "reward_mean": 0.1 * update, "time_s": update, "completion_tokens": 6},
                           [hostile_group(update, update - 1)])  # fmt: skip
    for version in (0, 5):
        lines = list(rollout_lines(hostile_group(99, version)))
        append_lines(directory.rollouts / f"evaluation_{version:06d}.jsonl", lines, replace=True)
    directory.release()
    out = tmp_path / "page.html"
    samples(str(directory.path), tmp_path, Filter(), "newest", 100, "html", out, None)
    return out


def test_a_models_text_never_runs_in_the_page(page_file: Path) -> None:
    with open_page(page_file.as_uri()) as (page, complaints):
        page.wait_for_selector("#group .card")
        for button in page.query_selector_all("#groups button"):
            button.click()
            page.wait_for_timeout(50)
        assert HOSTILE in (page.text_content("#group .message") or "")
        assert page.title() == "fake · rayzero"
        assert page.query_selector("#browser img, #browser iframe, #browser script, #browser a") is None
        assert complaints == []


def test_filters_pages_and_comparison(page_file: Path) -> None:
    with open_page(page_file.as_uri()) as (page, complaints):
        page.wait_for_selector("#groups button")
        assert page.locator("#groups button").count() == 7
        page.select_option("select[name=kind]", "train")
        page.select_option("select[name=version]", "2")
        assert page.locator("#groups button").count() == 1
        page.select_option("select[name=version]", "")
        page.select_option("select[name=kind]", "evaluation")
        page.locator("#groups button").first.click()
        page.click("#compare")
        page.wait_for_selector(".sides")
        text = page.text_content(".sides") or ""
        assert "at 0" in text and "at 5" in text and "changed" in text
        assert complaints == []


def visit_all(page: Page) -> int:
    """Open every group of every page of the list, as fast as the page can draw them."""
    return page.evaluate(
        """async () => {
            const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
            let seen = 0;
            for (;;) {
                for (const button of [...document.querySelectorAll("#groups button")]) {
                    button.click();
                    await drawn();
                    if (document.querySelector("#group .card")) seen += 1;
                }
                const next = document.querySelector("#pages button:last-child");
                if (!next || next.disabled) return seen;
                next.click();
                await drawn();
            }
        }"""
    )


def test_five_hundred_hostile_completions_are_shown_and_none_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Surrogates, controls, markup, NaN, long numbers and nesting in prompts, answers, completions and verdicts."""
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    rng = random.Random(16)
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe(num_updates=5))
    directory.release()
    recorder = Recorder(directory)
    groups: list[Group] = []
    left = 500
    while left > 0:
        groups.append(generated_group(rng, len(groups)))
        left -= len(groups[-1].rollouts)
    for update in range(1, 6):
        row = {"update": update, "reward_mean": float("nan"), "time_s": update, "completion_tokens": 6}
        recorder.on_update(row, groups[update - 1 :: 5])
    out = tmp_path / "page.html"
    samples(str(directory.path), tmp_path, Filter(), "newest", 500, "html", out, None)
    with open_page(out.as_uri()) as (page, complaints):
        page.wait_for_selector("#group .card")
        assert visit_all(page) == len(groups)
        assert page.title() == "fake · rayzero" and complaints == []
        assert (
            page.query_selector("#browser img, #browser iframe, #browser script, #browser a, #browser object") is None
        )
