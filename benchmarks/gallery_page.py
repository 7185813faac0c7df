"""The pages of docs/gallery: one a recipe, written from docs/results and the kept rollouts alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.curves_svg import svg
from benchmarks.gallery_answers import answers
from rayzero.services.pipeline.report import markdown
from rayzero.services.sweep.report import cell

MADE = "<!-- Written by `make gallery` from docs/results: change it there. -->\n\n"
BROKEN = ("#the-reward-fell", "#entropy-collapse", "#held-out-accuracy-fell", "#length-blow-up")
"""Findings of a run whose curve would show what not to do: words say it, and nothing is drawn."""

NOTES = {
    "demo": (
        "One of three seeds, in float32; the others end alike. "
        "[All three, longer numbers](../benchmarks.md#the-demo-on-three-seeds), "
        "[and bfloat16](../benchmarks.md#the-demo-in-two-dtypes), stand in the benchmarks."
    ),
    "tiny_addition": (
        "Four in five of the demonstrations that it starts from have one digit of the box spoilt, on purpose. Most of "
        "what T = 1 gains takes that out again; the likeliest answer gains less. It shows the machinery at work in "
        "minutes. What RL finds from right text alone is [R1-Zero in small](../benchmarks.md#r1-zero-in-small)."
    ),
}
"""What a reader must know beside a recipe's curve."""


def page(name: str, recipe: Mapping[str, Any], results: Mapping[str, Any] | None, rollouts: str | None) -> str:
    """The page of one recipe: its raw content, what is kept of its run, and the page of some of its rollouts."""
    text = [MADE + f"# {name}", "", f"{_description(recipe)}.", ""]
    text += [
        f"[The recipe](../../deploy/recipes/{name}.yaml), and its command:",
        "",
        f"    {command(name, recipe)}",
        "",
    ]
    if results is not None:
        text += _measured(name, results, rollouts)
    elif needs_gpu(recipe):
        text += _not_run(name, recipe)
    else:
        text += [
            f"No run of it is kept here yet: `make gallery RECIPE={name}` trains it, and draws this page. What was",
            "measured of it, if anything, stands in [Benchmarks](../benchmarks.md).",
            "",
        ]
    return "\n".join(text)


def index(recipes: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]) -> str:
    """The gallery's first page: a row a recipe."""
    rows = [["recipe", "", "held-out accuracy, before → after", "minutes"]]
    for name, recipe in recipes.items():
        found = results.get(name)
        gain, minutes = (_gain(found["members"][0]), _minutes(found)) if found else (_state(recipe), "–")
        rows.append([f"[{name}]({name}.md)", _description(recipe), gain, minutes])
    head, line, *body = markdown(rows)
    return "\n".join([
        MADE + "# Gallery",
        "",
        "A page a recipe: its curve, time, machine, seed, some of its rollouts, and its command. Each run is",
        "of seed 0, the first that was made with the recipe as it is; the rollouts are those of the first held-out",
        "prompts. One seed says little: [several](../guides/seeds.md) say whether a gain is one. Accuracy is that of",
        "answers drawn at T = 1, over all of a recipe's held-out prompts; of a pipeline's models the best is named.",
        "",
        head, line.replace("---:", "---"), *body,
        "",
        "The pages are drawn from the runs' JSON in `docs/results`; in a checkout",
        "",
        "    make gallery                 # the pages anew, from that JSON",
        "    make gallery RECIPE=demo     # that recipe's run anew, then its page",
        "",
    ])  # fmt: skip


def drawing(name: str, results: Mapping[str, Any]) -> str | None:
    """The curve as SVG; None for a run that broke."""
    if _broken(results):
        return None
    member = results["members"][0]
    return svg(f"{name}, seed {member['values']['seed']}", member["curves"], member["training"])


def command(name: str, recipe: Mapping[str, Any]) -> str:
    """What trains it."""
    verbs = "pipeline run" if "stages" in recipe else "train"
    return f"rayzero {verbs} deploy/recipes/{name}.yaml"


def _description(recipe: Mapping[str, Any]) -> str:
    """Its own, as Markdown shows it: `<think>` would be taken for a tag."""
    text = str(recipe.get("description", "")).replace("<", "&lt;")
    return text[:1].upper() + text[1:]


def needs_gpu(value: Any) -> bool:
    """Whether its engines are on GPUs, of a run or of a stage."""
    if isinstance(value, Mapping):
        return value.get("device") == "cuda" or any(needs_gpu(inner) for inner in value.values())
    return isinstance(value, list) and any(needs_gpu(inner) for inner in value)


def _measured(name: str, results: Mapping[str, Any], rollouts: str | None) -> Iterator[str]:
    member = results["members"][0]
    if _broken(results):
        yield "**This run did not end well**, so its curve is not shown as an example. What its health line said:"
        yield ""
    else:
        yield f"![{name}: held-out accuracy and length over updates]({name}.svg)"
        yield ""
    for finding in member.get("findings", ()):
        yield f"- {finding['text']} ([what to do]({finding['page'].replace('docs/', '../')}))"
    if member.get("findings"):
        yield ""
    if name in NOTES:
        yield from (NOTES[name], "")
    yield from markdown(_table(member["figures"]))
    yield ""
    yield from markdown([
        ["", ""],
        ["made by", f"`{results['command']}`"],
        ["date", results["date"]],
        ["machine", results["machine"] + _load(member)],
        ["computed in", results["dtype"]],
        ["seed", str(member["values"]["seed"])],
        ["wall time", f"{member['seconds'] / 60:.1f} minutes"],
        ["rayzero", results["rayzero"]],
    ])  # fmt: skip
    yield ""
    if rollouts is not None:
        yield "## What it wrote"
        yield ""
        yield "The first held-out prompts; long texts are cut."
        yield ""
        yield from answers(rollouts)
        yield f"[Some of its rollouts](rollouts/{name}.html), one file that needs no other: the same prompts before and"
        yield "after, each completion with its tokens and its verdict. On GitHub: download it, open it in a browser."
        yield ""


def _not_run(name: str, recipe: Mapping[str, Any]) -> Iterator[str]:
    check = command(name, recipe).replace(" run ", " check ").replace(" train ", " check ")
    cluster, rollout = recipe.get("cluster", {}), recipe.get("rollout", {})
    if "stages" not in recipe and "address" not in cluster:
        # Of a cluster and of a pipeline nothing is asked of this machine.
        learner = cluster.get("learner_gpus", 1)
        engines = rollout.get("num_workers", 1) * rollout.get("tensor_parallel_size", 1)
        check += f" --gpus {learner if 'colocate' in cluster else learner + engines}"
    yield '!!! warning "Not run"'
    yield "    It needs GPUs, and no run of it has been made: there is no curve, no time and no figure of it."
    yield "    [The GPU path](../gpu.md) says what stands behind it instead."
    yield ""
    yield "What it would place on which GPU, with the memory of each, is printed on any machine by"
    yield ""
    yield f"    {check}"
    yield ""


def _table(figures: Mapping[str, float]) -> list[list[str]]:
    """A row a figure, a column for each model or end of the run."""
    heads = list(dict.fromkeys(name.partition(" ")[0] for name in figures))
    names = list(dict.fromkeys(name.partition(" ")[2] for name in figures))
    rows = [["held-out prompts", *heads]]
    for name in names:
        source, _, figure = name.rpartition(" ")
        label = f"{source} tokens a completion".lstrip() if figure == "length" else f"{name}, %"
        found = [figures.get(f"{head} {name}") for head in heads]
        rows.append([label, *(cell(name, [] if value is None else [value]) for value in found)])
    return rows


def _gain(member: Mapping[str, Any]) -> str:
    """Of a pipeline's many models the best, by name; of several sources what is said of all of them."""
    accuracies = {name: value for name, value in member["figures"].items() if name.endswith(" accuracy")}
    if not accuracies:
        return "–"
    figure = next(iter(accuracies)).partition(" ")[2]
    values = {name.partition(" ")[0]: value for name, value in accuracies.items() if name.partition(" ")[2] == figure}
    first, *later = values
    best = max(later, key=values.__getitem__) if later else first
    return f"{values[first]:.0%} → {values[best]:.0%}" + (f" ({best})" if len(later) > 1 else "")


def _minutes(results: Mapping[str, Any]) -> str:
    return f"{results['members'][0]['seconds'] / 60:.0f}"


def _state(recipe: Mapping[str, Any]) -> str:
    return "not run" if needs_gpu(recipe) else "no run kept yet"


def _load(member: Mapping[str, Any]) -> str:
    load = member.get("load")
    return f"; load average {load:.1f} at its end, so other work ran beside it" if load and load > 4 else ""


def _broken(results: Mapping[str, Any]) -> bool:
    findings = results["members"][0].get("findings", ())
    return any(finding["level"] == "red" and finding["page"].endswith(BROKEN) for finding in findings)


def write_pages(
    root: Path, recipes: Mapping[str, Mapping[str, Any]], results: Mapping[str, Mapping[str, Any]]
) -> dict[Path, str]:
    """Every file of the gallery that is drawn, with its text."""
    folder = root / "docs/gallery"
    files = {folder / "index.md": index(recipes, results)}
    for name, recipe in recipes.items():
        found = results.get(name)
        html = folder / f"rollouts/{name}.html"
        rollouts = html.read_text(encoding="utf-8") if html.is_file() else None
        files[folder / f"{name}.md"] = page(name, recipe, found, rollouts)
        if found is not None and (text := drawing(name, found)) is not None:
            files[folder / f"{name}.svg"] = text
    return files
