"""A finished run's page in a real browser: no text of a model ever runs; filters and comparison work."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rayzero.services.cli.compare import compare_runs
from rayzero.services.cli.samples import samples
from rayzero.services.observe.browse.rollout_index import Filter
from rayzero.services.observe.recorder import Recorder
from rayzero.services.schema.episodes import EpisodeEnd, EpisodeOutcome, EpisodeRecord
from rayzero.services.schema.messages import ChatMessage, Group
from rayzero.services.store.json_lines import append_lines
from rayzero.services.store.rollout_file import rollout_lines
from rayzero.services.store.run_directory import RunDirectory
from tests.browser import open_page
from tests.episode_models import pair_tokenizer
from tests.fakes import make_completion, make_group, make_recipe
from tests.fakes_agents import ServedSessions
from tests.fakes_episodes import episode_request
from tests.faults import FAULTS, export, write_fault
from tests.hostile_cases import hostile_group as generated_group
from tests.system import needs
from tests.unit.services.observe.test_run_health import rows

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


DELAYED = """() => {
  for (const name of ["groups", "group"]) {
    const answer = source[name];
    source[name] = async (asked) => {
      const slow = asked.kind === "train" || asked === document.querySelector("#groups button").dataset.key;
      const found = await answer(asked);
      if (slow) await new Promise((done) => setTimeout(done, 500));
      return found;
    };
  }
}"""
"""Answers about what was trained, and about the first group of the list, come half a second late."""


def test_a_late_answer_never_takes_the_place_of_a_later_question(page_file: Path) -> None:
    with open_page(page_file.as_uri()) as (page, complaints):
        page.wait_for_selector("#group .card")
        page.evaluate(DELAYED)
        page.select_option("select[name=kind]", "train")
        assert page.locator("#groups[aria-busy]").count() == 1, "the list says that it is an old one"
        page.select_option("select[name=kind]", "evaluation")
        page.wait_for_timeout(700)
        assert page.locator("#groups .where").all_text_contents()[0].startswith("evaluation")
        page.locator("#groups button").first.click()
        page.locator("#groups button").nth(1).click()
        page.wait_for_timeout(700)
        assert page.locator("#groups button").nth(1).get_attribute("aria-current") == "true"
        assert page.locator("[aria-busy]").count() == 0 and complaints == []


async def forked_record() -> EpisodeRecord:
    """An episode that calls a tool, and whose history is rewritten after two turns: with a real session's tokens."""
    call = '<tool_call>\n{"name": "look", "arguments": {"at": "abc"}}\n</tool_call>'
    engine = ServedSessions(call, "hell 12", "cab")
    request = episode_request()
    prompt, tools = request.prompt.messages, ({"type": "function", "function": {"name": "look", "parameters": {}}},)
    sampling = dataclasses.replace(request.sampling, max_tokens=200)
    name = engine.sessions.open(dataclasses.replace(request, tools=tools, sampling=sampling))
    session = engine.sessions.find(name)
    first = (await session.answer(prompt, tools, None)).turn.message
    seen = ChatMessage(role="tool", content="call 23", tool_call_id=first.tool_calls[0].call_id)
    await session.answer((*prompt, first, seen), tools, None)
    await session.answer((*prompt, first, dataclasses.replace(seen, content="in short")), tools, None)
    return engine.sessions.close(name)


def test_a_forked_episode_is_shown_with_its_tools_and_its_branch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    record = asyncio.run(forked_record())
    outcome = EpisodeOutcome(end=EpisodeEnd.ANSWERED, reward=0.5, messages=record.messages)
    completion = dataclasses.replace(record.completion, end=outcome.end, outcome=outcome)
    group = make_group(1)
    rollouts = tuple(dataclasses.replace(rollout, completion=completion) for rollout in group.rollouts)
    directory = RunDirectory(tmp_path / "run")
    directory.prepare(make_recipe(num_updates=1))
    pair_tokenizer().save_pretrained(directory.file("model"))
    figures = {"update": 1, "reward_mean": 0.5, "time_s": 1, "completion_tokens": 6}
    Recorder(directory).on_update(figures, [dataclasses.replace(group, rollouts=rollouts)])
    directory.release()
    out = tmp_path / "page.html"
    samples(str(directory.path), tmp_path, Filter(), "newest", 100, "html", out, None)
    fork = completion.branches[0].fork
    with open_page(out.as_uri()) as (page, complaints):
        page.wait_for_selector("#group .branch")
        card = page.locator("#group .card").first
        speakers = card.locator(".episode .message b").all_text_contents()
        assert speakers == ["turn 1", "tool", "turn 2", "tool", "turn 3"]
        assert card.locator(".episode .call").text_content() == 'look({"at":"abc"})'
        assert f"branch 1 leaves the main completion after {fork} tokens, prompt included: rewritten" in (
            card.locator(".branch").text_content() or ""
        )
        observed = "".join(card.locator(".branch .token.observed").all_text_contents())
        assert "in short" in observed and "cab" not in observed
        assert "cab" in "".join(card.locator(".branch .token:not(.observed)").all_text_contents())
        assert complaints == []


def recorded(directory: RunDirectory, figures: Sequence[Mapping[str, object]]) -> None:
    """A run on disk with these rows and an evaluation at every tenth update."""
    directory.prepare(make_recipe(num_updates=len(figures)))
    recorder = Recorder(directory)
    for row in figures:
        update = int(str(row["update"]))
        recorder.on_update(dict(row) | {"time_s": 10 * update, "completion_tokens": 6},
                           [make_group(update, version=update - 1)])  # fmt: skip
    held_out = [{"update": at, "accuracy": 0.3 + 0.005 * at, "greedy_accuracy": 0.6} for at in (0, 20, 40)]
    append_lines(directory.file("evaluations.jsonl"), held_out, replace=True)
    directory.release()


def serious_faults(page: Page) -> list[str]:
    """What axe-core finds of serious faults for people who use a screen reader or a keyboard."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']}" for each in found if each["impact"] in ("serious", "critical")]


def test_a_runs_health_its_advice_and_its_curves_are_read_by_mouse_and_by_keyboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    run, out = RunDirectory(tmp_path / "run"), tmp_path / "page.html"
    recorded(run, rows(reward_mean=lambda done: 0.8 - 0.7 * max(0.0, done - 0.5), truncated_share=0.2))
    samples(str(run.path), tmp_path, Filter(status="wrong"), "spread", 20, "html", out, None)
    with open_page(out.as_uri()) as (page, complaints):
        page.wait_for_selector("#groups button")
        order, verdict = (page.input_value(f"select[name={name}]") for name in ("sort", "status"))
        assert (order, verdict) == ("spread", "wrong"), "as it was asked for"
        assert (page.text_content("#health") or "").startswith("red")
        assert "holds the policy back" not in page.inner_text("#health")
        page.locator("#health summary").first.click()
        assert "holds the policy back" in page.inner_text("#health"), "what to do is there, without a network"
        curve = page.locator("#curves svg").first
        curve.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert "reward_mean at 1: 0.8" in (page.text_content("#tip") or "")
        page.keyboard.press("Escape")
        page.locator("#smoothing").fill("0.9")
        assert page.locator("#curves svg").first.locator("polyline[stroke-opacity]").count() == 1
        box = page.locator("#curves svg").first.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 40)
        page.mouse.up()
        assert page.locator("#whole").is_visible() and "from 0.8" in (curve.get_attribute("aria-label") or "")
        page.click("#whole")
        assert page.locator("#whole").is_hidden()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert serious_faults(page) == []
        page.set_viewport_size({"width": 390, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone scrolls down alone"
        assert complaints == []


def test_the_curves_of_runs_lie_over_each_other(tmp_path: Path) -> None:
    recorded(RunDirectory(tmp_path / "one"), rows())
    recorded(RunDirectory(tmp_path / "two"), rows(entropy=0.2))
    compare_runs(["one", "two"], tmp_path, as_json=False, html=tmp_path / "both.html")
    with open_page((tmp_path / "both.html").as_uri()) as (page, complaints):
        assert page.inner_text("#legend").split() == ["▬", "one", "▬", "two"]
        assert page.inner_text("h1") == "one beside two"
        label = page.locator("#curves svg").nth(1).get_attribute("aria-label") or ""
        assert "one: entropy from 0.9 to 0.4" in label and "two: entropy from 0.2 to 0.2" in label
        assert page.locator("#browser").is_hidden() and serious_faults(page) == [] and complaints == []


@pytest.mark.parametrize("name", FAULTS)
def test_the_page_names_what_is_wrong(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six runs: a reader who sees the page alone learns what is wrong with each, and what to do."""
    monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "cache"))
    file = export(write_fault(name, tmp_path / "run"), tmp_path / "page.html")
    with open_page(file.as_uri()) as (page, complaints):
        page.wait_for_selector("#group .card")
        said = page.inner_text("#health")
        if not FAULTS[name].names:
            assert said.startswith("green") and page.locator("#health details").count() == 0
        else:
            assert FAULTS[name].names in page.locator("#health summary").first.inner_text(), "the worst comes first"
            page.locator("#health summary").first.click()
            assert len(page.inner_text("#health details")) > len(said), "and what to do"
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
