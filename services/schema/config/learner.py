"""How the policy is updated: advantage, loss, correction, optimizer, and the figures that may stop a run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rayzero.learner.objective.advantage import AdvantageName
from rayzero.learner.objective.losses.base import Aggregation
from rayzero.learner.objective.losses.dr_grpo import DrGrpoLoss
from rayzero.learner.objective.losses.grpo import GrpoLoss
from rayzero.learner.objective.losses.registry import LossSettings
from rayzero.services.schema.config.base import Section
from rayzero.services.schema.config.credit import CreditSettings, EpisodeCredit
from rayzero.services.schema.config.file_path import HomePath
from rayzero.services.schema.config.rejection import Rejection


class KlSettings(Section):
    """The pull towards a reference policy. With `beta` 0 no reference model is loaded."""

    beta: float = Field(default=0.0, ge=0.0)
    """Weight of the KL term. DeepSeekMath used 0.04, DeepSeek-R1 0.001."""
    estimator: Literal["k1", "k2", "k3"] | None = None
    """k1: log ratio; k2: half its square; k3: the unbiased, non-negative form of the GRPO papers
    (http://joschu.net/blog/kl-approx.html). Empty: k3 in the loss; k1 in the reward, the only one whose gradient there
    is that of the KL."""
    unbiased: bool = False
    """Multiply the estimate of every token by pi_theta / pi_old, gradient included: with k3 its gradient is then that
    of the KL also where pi_old is not the policy ("Unbiased KL Estimate" of DeepSeek-V3.2,
    https://arxiv.org/abs/2512.02556, eq. 7)."""
    place: Literal["loss", "reward"] = "loss"
    """Added to the loss of every token, or taken off the reward of every completion before the advantage."""
    refresh_every_updates: int = Field(default=0, ge=0)
    """The reference becomes a copy of the policy after every so many updates (DeepSeek-R1: 400). 0: frozen."""
    reference: HomePath | None = None
    """Directory of another model, with the policy's tokenizer, as the reference: with `advantage: none` and k2 that is
    on-policy distillation. Empty: the policy as the run begins."""

    @property
    def estimator_name(self) -> Literal["k1", "k2", "k3"]:
        """The estimator in force: the one asked for, or the one that is right in its place."""
        return self.estimator or ("k1" if self.place == "reward" else "k3")

    @model_validator(mode="after")
    def _reference_is_used(self) -> KlSettings:
        if self.estimator == "k1" and self.place == "loss" and self.beta > 0 and not self.unbiased:
            raise ValueError(
                "estimator k1 has no gradient on average where it is a loss: choose k2 or k3, set unbiased: true, or "
                "place: reward"
            )
        if self.unbiased and self.place == "reward":
            raise ValueError("unbiased is for place: loss: a reward has no gradient to correct")
        if self.refresh_every_updates and self.beta == 0:
            raise ValueError("refresh_every_updates is never read while beta is 0: raise beta, or leave it out")
        if self.reference is not None and self.beta == 0:
            raise ValueError("reference is never read while beta is 0: raise beta, or leave reference out")
        if self.reference is not None and self.refresh_every_updates:
            raise ValueError("a reference of its own is not refreshed: leave refresh_every_updates at 0")
        return self


class TokenTruncation(Section):
    """Multiply every token's loss by min(pi_old / pi_rollout, limit), detached (truncated importance sampling)."""

    name: Literal["token_truncation"] = "token_truncation"
    limit: float = Field(default=2.0, ge=1)
    """The largest weight; that of equal policies is 1."""


class SequenceTruncation(Section):
    """One weight a completion, min(prod pi_old / pi_rollout, limit), on all its tokens."""

    name: Literal["sequence_truncation"] = "sequence_truncation"
    limit: float = Field(default=2.0, ge=1)
    """The largest weight; that of equal policies is 1."""


def _check_band(low: float, high: float) -> None:
    if not low <= 1 <= high:
        raise ValueError(
            f"low ({low:g}) and high ({high:g}) must have 1 between them: at equal policies the ratio is 1, and all "
            "of it would be dropped"
        )


class IcePop(Section):
    """Weight a token by pi_old / pi_rollout where that lies in [low, high]; drop the token elsewhere."""

    name: Literal["icepop"] = "icepop"
    low: float = Field(default=0.5, gt=0)
    """Lower edge of the band."""
    high: float = Field(default=5.0, gt=0)
    """Upper edge of the band."""

    @model_validator(mode="after")
    def _lets_equal_policies_pass(self) -> IcePop:
        _check_band(self.low, self.high)
        return self


class GeometricRejection(Section):
    """Drop a completion whose geometric-mean ratio pi_old / pi_rollout leaves [low, high]; weigh the others 1."""

    name: Literal["geometric_rejection"] = "geometric_rejection"
    low: float = Field(default=0.99, gt=0)
    """Lower edge of the band."""
    high: float = Field(default=1.01, gt=0)
    """Upper edge of the band."""

    @model_validator(mode="after")
    def _lets_equal_policies_pass(self) -> GeometricRejection:
        _check_band(self.low, self.high)
        return self


class RolloutAsOld(Section):
    """pi_rollout is pi_old: the loss's ratio is pi_theta / pi_rollout, and its clip is the trust region against the
    engine that sampled, at the first step of a batch too. Nothing is corrected besides ("bypass" elsewhere)."""

    name: Literal["rollout_as_old"] = "rollout_as_old"


class NoCorrection(Section):
    """Take the rollout's tokens as if the learner had sampled them itself."""

    name: Literal["none"] = "none"


CorrectionSettings = Annotated[
    TokenTruncation | SequenceTruncation | IcePop | GeometricRejection | RolloutAsOld | NoCorrection,
    Field(discriminator="name"),
]


class OptimizerSettings(Section):
    """AdamW on fp32 master weights."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """Keeps the division finite."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay, on matrices only: embeddings and the head among them, norms and biases not."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients with a larger global norm are scaled down to it."""
    warmup_updates: int = Field(default=0, ge=0)
    """The rate climbs linearly over so many updates."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """Shape of the rate from the end of the warm-up to the run's last update."""
    floor: float = Field(default=0.0, ge=0, le=1)
    """Share of the peak rate at which the decay ends: at 0 the last update has rate 0, and changes nothing."""


class ComputeSettings(Section):
    """How the maths is laid out. None of these changes a gradient by more than rounding, unless a `custom` loss takes
    means across the completions of a micro-batch."""

    num_threads: int | None = Field(default=None, ge=1)
    """Threads of a learner process, which matter where a CPU computes. Empty: all cores of its node, shared among the
    ranks that are there. A tiny model is faster on one: its operations end before a second thread has woken up."""
    tokens_per_microbatch: int = Field(default=8192, ge=1)
    """Most tokens (prompts counted once where they are shared) in one forward and backward pass: bounds the memory."""
    share_prompts: bool = True
    """Forward a group's prompt once for all its completions, and what prompts of a micro-batch have in common at their
    start, a system prompt or examples, once for all of them."""
    skip_neutral_groups: bool = True
    """Leave groups out of forward and backward whose gradient is exactly zero; denominators keep counting them."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass: a third more work for a fraction of the memory. Empty: where a GPU's
    memory plan asks for it."""
    offload_optimizer: bool | None = None
    """fp32 masters, gradients and moments in the host's memory, stepped by its cores: 2 bytes a parameter on the GPU
    instead of 18. Empty: where the memory plan asks for it, after checkpointing."""
    compile: bool | None = None
    """torch.compile of the decoder layers, reference included, half a minute at the start. Empty: on GPUs, where it
    makes an update of one GPU half as fast again (not measured where ranks shard the model); on CPUs it gained
    nothing."""
    head_chunk_tokens: int = Field(default=0, ge=0)
    """Rows of logits held at a time. 0: chosen from the vocabulary's size."""


class LoraSettings(Section):
    """Train low-rank adapters on the linear layers (https://arxiv.org/abs/2106.09685) and leave the rest frozen."""

    rank: int = Field(default=16, ge=1)
    """r."""
    alpha: float = Field(default=32.0, gt=0)
    """The adapter is scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ()
    """Names of the linear layers that get one, such as `q_proj`. Empty, or `all-linear`: all of the decoder's, whatever
    they are called (Phi-3's are `qkv_proj`, `o_proj`, `gate_up_proj` and `down_proj`)."""

    @field_validator("target_modules", mode="before")
    @classmethod
    def _as_peft_has_it(cls, given: Any) -> Any:
        if isinstance(given, str):
            return () if given == "all-linear" else (given,)
        return given

    @property
    def scaling(self) -> float:
        """What B A is multiplied with."""
        return self.alpha / self.rank


class WatchSettings(Section):
    """Figures checked at every update before the optimizer step. An empty limit is chosen by the precision."""

    kl_warn: float | None = Field(default=None, gt=0)
    """k3-KL between sampler and learner at equal versions that warns. Empty: 5e-3 in bfloat16, 1e-3 in
    float16, 1e-6 in float32."""
    kl_stop: float | None = Field(default=None, gt=0)
    """The same that stops the run. Empty: 2e-2 in bfloat16, 5e-3 in float16, 1e-4 in float32."""
    min_tokens: int = Field(default=512, ge=1)
    """With fewer tokens to compare, the KL warns and does not stop: one token would decide. Smaller comparisons are put
    together, the newest first, until they have so many."""
    sample_tokens: int = Field(default=128, ge=0)
    """KL, effective sample size and entropy speak of all tokens of a batch. Of the completions that give no gradient,
    which are not fed otherwise, so many tokens are scored for that at every optimizer step, forward only. 0: none; the
    figures then leave groups with equal rewards out."""
    ess_warn: float = Field(default=0.3, ge=0, le=1)
    """Effective sample size of the importance weights, as a share of the tokens, that warns."""
    ess_stop: float = Field(default=0.05, ge=0, le=1)
    """The same that stops the run."""
    grad_norm_stop: float | None = Field(default=None, gt=0)
    """Gradient norm, before clipping, that stops the run. Empty: only a gradient that is not finite does."""

    @model_validator(mode="after")
    def _warn_before_stop(self) -> WatchSettings:
        if self.ess_warn < self.ess_stop:
            raise ValueError("ess_warn must not be below ess_stop: a warning comes before the stop")
        if self.kl_warn is not None and self.kl_stop is not None and self.kl_warn > self.kl_stop:
            raise ValueError("kl_warn must not be above kl_stop: a warning comes before the stop")
        return self

    def kl_limits(self, dtype: str) -> tuple[float, float]:
        """(warn, stop) for a run that computes in `dtype`."""
        warn, stop = {"bfloat16": (5e-3, 2e-2), "float16": (1e-3, 5e-3)}.get(dtype, (1e-6, 1e-4))
        stop = self.kl_stop if self.kl_stop is not None else stop
        return (self.kl_warn if self.kl_warn is not None else min(warn, stop)), stop


class LearnerSettings(Section):
    """Group in, new weights out."""

    loss: LossSettings = GrpoLoss()
    """What is minimised."""
    advantage: AdvantageName | None = None
    """How rewards become advantages. Empty: as the loss was published (grpo: std_normalised). `none`: rewards are only
    watched, and the KL term alone trains."""
    credit: CreditSettings = EpisodeCredit()
    """Which of an episode's turns is credited with what: `{name: discounted}` and `{name: progress}` give each turn an
    advantage of its own, from the rewards that its environment says of it."""
    kl: KlSettings = KlSettings()
    """Reference policy."""
    entropy_coefficient: float = Field(default=0.0, ge=0)
    """Entropy bonus a token."""
    correction: CorrectionSettings = TokenTruncation()
    """Repair of the gap between the engine that sampled and the learner's own policy at the start of the batch."""
    rejection: tuple[Rejection, ...] = ()
    """Rules that leave tokens and completions out, beside the correction and in any number, e.g.
    `[{name: sequence_mask, high: 3}, {name: token_veto, low: 1.0e-4}]`."""
    truncated: Literal["train", "mask"] = "train"
    """Completions that max_tokens cut off: train on them like on any other, or leave their tokens out of the loss
    (DAPO's overlong filtering). Their rewards count in their group's statistics either way; masked, they are as empty
    completions in the denominators."""
    aggregation: Aggregation | None = None
    """How token losses become one: `completion_mean` (GRPO, GSPO, SAPO), `token_mean` over the batch (dapo, cispo,
    reinforce++ here; the default of TRL and verl), `group_token_mean` (as DAPO's and CISPO's papers print it),
    `constant`, sums over max_tokens (Dr. GRPO). Empty: as the loss has it."""
    steps_without_gradient: bool = False
    """Whether a batch without any gradient (rewards equal within every group, or all of it masked or rejected) is a
    step all the same, with a gradient of 0: AdamW's momentum goes on and fades, as in trainers that do not look. Small
    batches whose groups are soon all right or all wrong learn sooner so. `false`: no weight moves."""
    inner_epochs: int = Field(default=1, ge=1)
    """Passes over a batch. More than one: pi_old is computed once, at the start."""
    minibatches: int = Field(default=1, ge=1)
    """Optimizer steps a pass; whole groups are dealt to them in turn."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """AdamW."""
    compute: ComputeSettings = ComputeSettings()
    """Memory and speed."""
    lora: LoraSettings | None = None
    """Adapters instead of full weights. Empty: train everything."""
    routing_replay: bool = False
    """Of a mixture of experts: send each token to the experts that the engine sent it to, weighed by the learner's own
    router (Rollout Routing Replay, R3, https://arxiv.org/abs/2510.11370). Else each chooses for itself, and some tokens
    go to other experts than those that sampled them."""
    watch: WatchSettings = WatchSettings()
    """Limits."""

    @model_validator(mode="after")
    def _teaches(self) -> LearnerSettings:
        pulls = self.kl.beta > 0 or self.entropy_coefficient > 0 or not self.loss.rests_without_advantage
        if self.advantage == "none" and not pulls:
            raise ValueError("advantage: none with kl.beta 0 teaches nothing: raise kl.beta, or choose an advantage")
        if self.aggregation is not None and isinstance(self.loss, DrGrpoLoss) and self.loss.constant_tokens is not None:
            raise ValueError("aggregation and loss.constant_tokens both say what sums are divided by: give one of them")
        if self.advantage_name == "component_normalised" and self.kl.beta > 0 and self.kl.place == "reward":
            raise ValueError(
                "advantage: component_normalised divides what the KL takes off the reward by its spread, so that "
                "kl.beta has no effect: set kl.place: loss"
            )
        if self.advantage == "none" and self.kl.place == "reward":
            raise ValueError("advantage: none with kl.place: reward teaches nothing: set kl.place: loss")
        return self

    @model_validator(mode="after")
    def _turns_can_be_credited(self) -> LearnerSettings:
        if self.credit.name == "episode":
            return self
        if self.loss.has_one_ratio:
            raise ValueError(
                f"credit: {self.credit.name} gives each turn a value of its own, and loss {self.loss.name} gives all "
                "tokens of an episode one: choose a loss with a ratio a token, or credit: {name: episode}"
            )
        if self.advantage_name in ("component_normalised", "none"):
            raise ValueError(
                f"credit: {self.credit.name} shares out one reward, and advantage: {self.advantage_name} has not one: "
                "choose another advantage"
            )
        if any(rule.name == "off_policy_mask" for rule in self.rejection):
            raise ValueError(
                f"rejection: off_policy_mask asks for the sign of an episode's advantage, and credit: "
                f"{self.credit.name} gives each turn its own: leave one of them out"
            )
        return self

    @property
    def advantage_name(self) -> AdvantageName:
        """The advantage in force: the one asked for, or the loss's published one."""
        return self.advantage or self.loss.published_advantage

    @property
    def steps_per_update(self) -> int:
        """Optimizer steps on one batch."""
        return self.inner_epochs * self.minibatches
