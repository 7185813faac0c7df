"""Where prompts come from: sources by kind, how their columns map, how they are mixed and held apart."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.file_path import FilePath
from rayzero.services.schema.config.function_name import FunctionName

FormatName = Literal[
    "verl",
    "prime",
    "dapo",
    "open_r1",
    "livecodebench",
    "apps",
    "taco",
    "code_contests",
    "leetcode_dataset",
    "kodcode",
    "acecoder",
    "mbpp",
    "open_instruct",
]


class ColumnSettings(Section):
    """Which column of a row holds what; `a.b` is `b` in column `a` (an object, a list, or JSON text of one). Columns
    not named here travel with the prompt, for custom rewards."""

    prompt: str = "prompt"
    """The question as text: becomes one user message."""
    messages: str = "messages"
    """A whole conversation, a list of `{role, content}`; where a row has it, it is used instead of `prompt`."""
    answer: str | None = "answer"
    """The answer spec, as the reward needs it: a gold string (or a list, of which each is right), or `{language,
    tests}` for code. `null`: these prompts have none, for rewards that need none."""
    answer_after: str | None = None
    """The gold string is what follows the last occurrence of this text in the answer column, e.g. `####` for GSM8K."""
    source: str | None = None
    """Column that names each row's source, instead of the source's `name`: chooses the rubric, splits the metrics."""


class SourceSettings(Section):
    """What all sources have."""

    name: str = Field(default="default", min_length=1)
    """Chooses the rubric of these prompts and splits the metrics."""
    weight: float = Field(default=1.0, gt=0)
    """Share of this source in the mix, relative to the other sources' weights."""
    columns: ColumnSettings = ColumnSettings()
    """Which column holds what."""
    format: FormatName | None = None
    """The rows are as this data set is published: prompt and answer are read from its columns, and of `columns` only
    `source` counts. While `name` is `default` a row's rubric is chosen by its task: `math`, `code`, `exact` or
    `instructions`, or `default`. See docs/data.md."""
    instructions: str = "{prompt}"
    """What is asked; `{prompt}` stands for the text of the prompt column. Conversations are left as they are."""
    system_prompt: str | None = None
    """Put before every conversation that does not start with a system message of its own."""
    max_prompts: int | None = Field(default=None, ge=1)
    """Take only the first so many rows. Empty: all."""

    @property
    def names_by_row(self) -> bool:
        """Each row says which rubric judges it."""
        return self.columns.source is not None or (self.format is not None and self.name == "default")

    @field_validator("instructions")
    @classmethod
    def _holds_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("must hold {prompt}, where the text of the prompt column goes")
        return value


class JsonLinesSource(SourceSettings):
    """Files with one JSON object a line; `.jsonl.gz` too."""

    kind: Literal["jsonl"] = "jsonl"
    path: FilePath
    """A file, a directory or a pattern (`data/part-*.jsonl`); relative paths start from where the command runs."""


class CsvSource(SourceSettings):
    """CSV or TSV files whose first line names the columns; `.csv.gz` too. Every value is text."""

    kind: Literal["csv"] = "csv"
    path: FilePath
    """A file, a directory or a pattern (`data/part-*.csv`); relative paths start from where the command runs."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """What parts the columns. Empty: a tab in `.tsv` files, a comma in others."""


class ParquetSource(SourceSettings):
    """Parquet files."""

    kind: Literal["parquet"] = "parquet"
    path: FilePath
    """A file, a directory or a pattern (`data/train-*.parquet`); relative paths start from where the command runs."""


class HuggingFaceSource(SourceSettings):
    """A dataset of the Hugging Face hub, or one saved on disk. Needs the package `datasets`."""

    kind: Literal["huggingface"] = "huggingface"
    path: FilePath
    """The hub id, e.g. `openai/gsm8k`, or a local directory."""
    config: str | None = None
    """The dataset's configuration, e.g. `main`."""
    split: str = "train"
    """The dataset's split, e.g. `train` or `test[:200]`."""
    revision: str | None = None
    """Commit or tag, so that a run can be repeated."""


class ReasoningGymSource(SourceSettings):
    """A task of `reasoning-gym`: procedurally generated questions with verifiable answers."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    task: str = Field(min_length=1)
    """E.g. `chain_sum`, `countdown`, `gsm_symbolic`."""
    num_prompts: int = Field(default=1000, ge=1)
    """How many questions to generate."""
    seed: int = Field(default=0, ge=0)
    """Of the generator: give the held-out prompts another one."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """The task's own parameters, e.g. `{min_digits: 1, max_digits: 3}`."""
    instructions: str = "{prompt}\n\nPut your final answer in \\boxed{}."
    """What is asked; `{prompt}` stands for the generated question."""


class FunctionSource(SourceSettings):
    """A Python function that returns or yields rows: mappings with the columns named in `columns`."""

    kind: Literal["function"] = "function"
    function: FunctionName
    """`module:function`, e.g. `rayzero.services.data.tasks.numbers:number_after`."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Its keyword arguments."""


DataSource = Annotated[
    JsonLinesSource | CsvSource | ParquetSource | HuggingFaceSource | ReasoningGymSource | FunctionSource,
    Field(discriminator="kind"),
]


_KINDS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
}  # fmt: skip


def kind_of_file(path: str) -> str | None:
    """The kind of source that a file's name tells; None where it tells none."""
    suffix = PurePath(path.removesuffix(".gz")).suffix
    return _KINDS.get(suffix)


class CurriculumSettings(Section):
    """Sample where there is something to learn: solved prompts are skipped, hopeless ones deferred, none for ever.
    A prompt's pass rate is the share of a group's completions that are accurate, averaged over its groups."""

    skip_above: float = Field(default=0.95, gt=0.0, le=1.0)
    """A prompt with at least this pass rate is solved."""
    skip_epochs: int = Field(default=3, ge=1)
    """How many turns a solved prompt is passed over before it is sampled again: its answers may have been unlearnt."""
    defer_below: float = Field(default=0.0, ge=0.0, lt=1.0)
    """A prompt with at most this pass rate is hopeless for now; 0: none of its completions was ever right."""
    defer_epochs: int = Field(default=1, ge=1)
    """How many turns a hopeless prompt is passed over."""
    newest_share: float = Field(default=0.5, gt=0.0, le=1.0)
    """Weight of a prompt's newest group in its pass rate; 1: it alone counts."""

    @model_validator(mode="after")
    def _leaves_something_between(self) -> CurriculumSettings:
        if self.defer_below >= self.skip_above:
            raise ValueError(
                f"defer_below ({self.defer_below:g}) must be lower than skip_above ({self.skip_above:g}): "
                "else every prompt is passed over"
            )
        return self


class DataSettings(Section):
    """Prompts to train on and prompts held out. The two never share a prompt."""

    train: tuple[DataSource, ...] = Field(min_length=1)
    """Sources of the training prompts, mixed by weight."""
    held_out: tuple[DataSource, ...] = ()
    """Sources of the held-out prompts. Empty: they are split off from the training sources before training."""
    num_held_out: int | None = Field(default=None, ge=1)
    """How many prompts to split off when `held_out` is empty: the same ones however many of them are evaluated. Empty:
    a tenth of all prompts, each by its text alone, so that they stay the same when data are added."""
    on_overlap: Literal["drop_from_train", "refuse"] = "drop_from_train"
    """A held-out prompt that is also a training prompt: take it out of the training prompts, or refuse the recipe."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt, in tokens as the model gets it. All prompts are counted before the start. Empty: those that leave
    no room for a completion are dropped as they come."""
    on_long_prompt: Literal["drop", "truncate"] = "drop"
    """A prompt beyond `max_prompt_tokens`: leave it out, or cut off the beginning of its last message until it fits."""
    shuffle: bool = True
    """Go through the training prompts in a new order each epoch, chosen by the recipe's seed."""

    curriculum: CurriculumSettings | None = None
    """Choose prompts by their pass rates. Empty: every prompt has its turn in every epoch."""

    @model_validator(mode="after")
    def _one_way_of_holding_out(self) -> DataSettings:
        if self.held_out and self.num_held_out is not None:
            raise ValueError("num_held_out is for splitting off training prompts: leave it out when held_out is given")
        return self

    @field_validator("train", "held_out")
    @classmethod
    def _known_file_kinds(cls, sources: tuple[DataSource, ...]) -> tuple[DataSource, ...]:
        for source in sources:
            if isinstance(source, JsonLinesSource | CsvSource | ParquetSource):
                kind = kind_of_file(source.path)
                if kind not in (None, source.kind):
                    raise ValueError(f"{source.path} is not {source.kind}: write kind: {kind}")
        return sources
