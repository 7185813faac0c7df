"""What one micro-batch holds of a sample: all of it, or those nodes of an episode that fit the budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rayzero.learner.batch.nodes import PROMPT, EpisodeNode, needed, split
from rayzero.learner.batch.samples import TrainingSample


@dataclass(frozen=True, slots=True)
class Piece:
    """Nodes of a sample, each cut to what is fed of it, and how much of the prompt they see."""

    sample: TrainingSample
    nodes: tuple[EpisodeNode, ...]
    prompt_length: int

    @property
    def num_fed(self) -> int:
        """Tokens that are fed behind the prompt."""
        return sum(len(node.token_ids) for node in self.nodes)

    @property
    def num_tokens(self) -> int:
        """Tokens that are trained."""
        return sum(len(node.targets) for node in self.nodes)

    @property
    def num_pairs(self) -> float:
        """(query, key) pairs of attention, the prompt's own left out."""
        lengths = ((node.fork, len(node.token_ids)) for node in self.nodes)
        return sum(fed * (fork + fed / 2) for fork, fed in lengths)

    @property
    def targets(self) -> NDArray[np.int32]:
        """The tokens that are trained."""
        trained = [self.sample.token_ids[node.first : node.first + len(node.targets)] for node in self.nodes]
        return trained[0] if len(trained) == 1 else np.concatenate(trained)


def pieces_of(sample: TrainingSample, budget: int) -> list[Piece]:
    """The pieces of a sample that feed at most `budget` tokens with the prompt, as far as its paths are no longer;
    none of a sample without tokens."""
    if not sample.num_tokens:
        return []
    whole = whole_piece(sample)
    if len(whole.nodes) == 1 or whole.prompt_length + whole.num_fed <= budget:
        return [whole]
    return [Piece(sample, *needed(sample.nodes, part)) for part in split(sample.nodes, budget)]


def whole_piece(sample: TrainingSample) -> Piece:
    """All of a sample that must be fed to train its tokens."""
    if sample.nodes:
        return Piece(sample, *needed(sample.nodes, range(len(sample.nodes))))
    length = len(sample.prompt_token_ids)
    node = EpisodeNode(
        parent=PROMPT,
        fork=length,
        token_ids=sample.token_ids[:-1],
        targets=np.arange(sample.num_tokens),
        first=0,
        routed_experts=sample.routed_experts,
    )
    return Piece(sample, (node,), length)
