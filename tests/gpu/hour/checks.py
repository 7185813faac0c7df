"""`pytest tests/gpu` as a step."""

from __future__ import annotations

from xml.etree import ElementTree

from tests.gpu.hour.context import Context, StepFailed

NAMED = 3
"""Failed tests that the reason names."""


def tests(context: Context) -> None:
    """Run them with this Python; warnings of libraries in other versions than the locked ones fail nothing."""
    file = context.folder / "tests.xml"
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=default",
        "-o",
        "timeout=180",
        f"--junitxml={file}",
    ]
    context.run(["pytest", "tests/gpu", *options, "--durations=10"], good=(0, 1))
    cases = list(ElementTree.parse(file).getroot().iter("testcase"))
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    context.note(passed=len(cases) - len(bad) - skipped, failed=len(bad), skipped=skipped)
    if bad:
        names = ", ".join(str(case.get("name")) for case in bad[:NAMED])
        raise StepFailed(f"{len(bad)} of {len(cases)} tests failed: {names}{', …' if len(bad) > NAMED else ''}")
