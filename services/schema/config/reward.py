"""What is rewarded, by which rewards, weighted how; and how many workers do it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, field_validator, model_validator

from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.reward_components import AnyComponent, CosineLengthComponent, Rubric


class RewardSettings(Section):
    """Reward workers and what they reward."""

    rubrics: dict[str, Rubric] = Field(min_length=1)
    """For each data source its components by name; `default` serves the sources that have no rubric of their own.
    E.g. `{default: {accuracy: {kind: math, gate: format}, format: {kind: format, weight: 0.1}}}`."""
    num_workers: int = Field(default=1, ge=1)
    """Reward actors to start with."""
    min_workers: int = Field(default=1, ge=1)
    """Scaling never goes below."""
    max_workers: int = Field(default=64, ge=1)
    """Scaling never goes above."""
    num_cpus_per_worker: float = Field(default=1.0, gt=0)
    """CPUs that each actor asks a Ray cluster for, a local Ray for none; each of its components that judges in
    children runs as many at a time, rounded up."""
    num_gpus_per_worker: float = Field(default=0.0, ge=0, le=1)
    """GPUs that each actor asks Ray for, for its reward models: 1, or a part (`0.5`: two actors share one). 0: reward
    models compute on CPUs, and reward workers see no GPU."""
    max_asleep: int = Field(default=32, ge=0)
    """Children besides these that may hang without using a CPU until their deadline, so that they hold up no other
    work."""
    deadline_s: float = Field(default=60.0, gt=0)
    """All verdicts of one group, waiting for children included; what is not scored by then is an error."""

    @field_validator("rubrics")
    @classmethod
    def _rubrics_stand(cls, rubrics: dict[str, Rubric]) -> dict[str, Rubric]:
        for source, rubric in rubrics.items():
            check_rubric(source, rubric)
        return rubrics

    @field_validator("num_gpus_per_worker")
    @classmethod
    def _parts_can_be_told_apart(cls, share: float) -> float:
        if 0 < share < 0.01:
            raise ValueError(f"num_gpus_per_worker is {share:g}: give 0, or at least 0.01 of a GPU")
        return share

    @model_validator(mode="after")
    def _within_bounds(self) -> RewardSettings:
        if not self.min_workers <= self.num_workers <= self.max_workers:
            raise ValueError(
                f"num_workers ({self.num_workers}) must lie within min_workers ({self.min_workers}) and "
                f"max_workers ({self.max_workers})"
            )
        return self

    def rubric_for(self, source: str) -> Rubric | None:
        """The rubric of a data source; None where neither it nor `default` is given."""
        return self.rubrics.get(source, self.rubrics.get("default"))

    def has_rubric(self, source: str) -> bool:
        """Whether prompts of a data source can be judged."""
        return self.rubric_for(source) is not None


def requirements_of(component: AnyComponent) -> tuple[str, ...]:
    """The components that must be scored before this one."""
    return (*component.gate, component.of) if isinstance(component, CosineLengthComponent) else component.gate


def check_rubric(source: str, rubric: Mapping[str, AnyComponent]) -> None:
    """Raise ValueError for a rubric that can never give a reward: unknown or circular gates, no weight at all."""
    where = f"rubric {source!r}"
    if not rubric:
        raise ValueError(f"{where} is empty: name at least one component, e.g. accuracy: {{kind: math}}")
    if all(component.weight == 0 for component in rubric.values()):
        raise ValueError(f"{where}: every weight is 0, so every reward would be 0")
    for name, component in rubric.items():
        for needed in requirements_of(component):
            if needed not in rubric:
                raise ValueError(f"{where}: {name} refers to {needed!r}, which it does not have: {', '.join(rubric)}")
    settled: set[str] = set()
    while len(settled) < len(rubric):
        ready = {name for name in rubric if name not in settled and settled.issuperset(requirements_of(rubric[name]))}
        if not ready:
            circle = ", ".join(sorted(set(rubric) - settled))
            raise ValueError(f"{where}: {circle} wait for one another: a circle of gates")
        settled |= ready
