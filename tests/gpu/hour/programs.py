"""Which steps there are, in which order: the cheapest and most telling first. Estimates are for one H200, from what
parts of them took there or take elsewhere; docs/gpu.md says what has run. Standard library alone."""

from __future__ import annotations

from collections.abc import Mapping

from tests.gpu.hour.steps import Figure, Program, Step

KL = Figure(key="kl", what="k3-KL between engine and learner, the worst update", at_most=5e-3)
"""The recipe's own limit for a warning in bf16 (learner.watch.kl_warn)."""
SYNC = (
    Figure(key="sync_s", what="sync, update ready to acknowledged", unit="ms"),
    Figure(key="pause_s", what="of it, engine paused", unit="ms"),
)
UPDATES = Figure(key="updates", what="updates")
CROSSED = Figure(key="crossed", what="completions with tokens of two versions", at_least=1)
PROBLEMS = Figure(key="problems", what="groups lost or doubled (rayzero audit)", at_most=0)
ROLLOUT = Figure(key="rollout_tokens_per_s", what="rollouts, while generating", unit="tokens/s")
TESTS = (
    Figure(key="passed", what="tests passed"),
    Figure(key="failed", what="tests failed", at_most=0),
    Figure(key="skipped", what="tests skipped"),
)


def _learner(at_least: float) -> tuple[Figure, ...]:
    return (
        Figure(key="learner_tokens_per_s", what="learner, prompts shared", unit="tokens/s", at_least=at_least),
        Figure(key="head_overhead", what="head's fp32 logits over its three bare products", unit="%", at_most=0.3),
        Figure(key="mfu", what="learner, share of the products' measured speed", unit="%"),
        Figure(key="gemm_tflops", what="bf16 products, TFLOP/s"),
    )


FIRST_HOUR = Program(
    name="first_hour",
    title="First hour on one GPU",
    num_gpus=1,
    steps=(
        Step(
            name="device",
            what="the machine, and fp32 logits from bf16 products",
            work="tests.gpu.hour.facts:device",
            cuda_s=15,
            cpu_s=15,
            figures=(
                Figure(key="gpu", what="GPU"),
                Figure(key="memory_gib", what="its memory", unit="GiB"),
                Figure(key="driver", what="driver"),
                Figure(key="torch", what="torch"),
                Figure(key="vllm", what="vLLM"),
                Figure(key="ray", what="Ray"),
                Figure(key="head_error", what="mm(bf16, bf16) to fp32, relative error against float64", at_most=1e-4),
                Figure(key="head_cost", what="its time over the product that rounds to bf16", unit="%"),
            ),
        ),
        Step(
            name="engine",
            what="an engine alone, eager",
            work="tests.gpu.hour.engine:alone",
            cuda_s=35,
            cpu_s=30,
            figures=(
                Figure(key="start_s", what="start", unit="s"),
                Figure(key="tokens_per_s", what="tokens", unit="tokens/s"),
                Figure(key="same_seed", what="the same seeds give the same tokens", at_least=1),
                Figure(key="gap", what="mean |Δ log p| against the policy, fp32 head", at_most=5e-2),
            ),
        ),
        Step(
            name="loop",
            what="the demo's model in the loop, one GPU shared: weights by CUDA IPC",
            work="tests.gpu.hour.loops:demo",
            cuda_s=60,
            cpu_s=50,
            figures=(UPDATES, KL, *SYNC, ROLLOUT),
        ),
        Step(
            name="graphs",
            what="its shape with CUDA graphs, weights new while it generates",
            work="tests.gpu.hour.loops:graphs",
            cuda_s=70,
            figures=(UPDATES, KL, CROSSED, *SYNC),
        ),
        Step(
            name="rollout",
            what="Qwen3-0.6B's shape: an engine beside vLLM's own bench",
            work="tests.gpu.hour.speed:rollout",
            cuda_s=105,
            needs="CUDA: it compares engines as they are on a GPU",
            figures=(
                Figure(key="tokens_per_s", what="rollouts", unit="tokens/s"),
                Figure(key="vllm_tokens_per_s", what="vllm bench throughput, the same lengths", unit="tokens/s"),
                Figure(key="of_vllm", what="rollouts ÷ vLLM's bench", unit="%", at_least=0.9),
                Figure(key="of_bound", what="rollouts, of the decode bound", unit="%"),
            ),
        ),
        Step(
            name="colocated",
            what="Qwen3-0.6B's shape in the loop, one GPU shared",
            work="tests.gpu.hour.loops:colocated",
            cuda_s=90,
            figures=(
                UPDATES,
                KL,
                Figure(key="sync_s", what="sync, update ready to acknowledged", unit="ms", at_most=0.1),
                Figure(key="pause_s", what="of it, engine paused", unit="ms", at_most=0.03),
                Figure(key="tokens_per_s", what="completion tokens, end to end", unit="tokens/s", at_least=15_000),
                ROLLOUT,
                Figure(key="learner_tokens_per_s", what="trained, while learning", unit="tokens/s"),
            ),
            profile="tests.gpu.hour.profiles:sync",
            profile_s=60,
        ),
        Step(
            name="learner",
            what="Qwen3-0.6B's shape: learner and head",
            work="tests.gpu.hour.speed:learner",
            cuda_s=70,
            needs="CUDA: a CPU's learner is measured by `rayzero bench learner`",
            figures=_learner(120_000),
            profile="tests.gpu.hour.profiles:learner",
        ),
        Step(
            name="sleep",
            what="the loop with an engine that sleeps while the learner works",
            work="tests.gpu.hour.loops:sleep",
            cuda_s=85,
            figures=(UPDATES, KL, *SYNC),
            beside="checks",
        ),
        Step(
            name="fp8",
            what="the loop with an engine in fp8",
            work="tests.gpu.hour.loops:fp8",
            cuda_s=85,
            figures=(UPDATES, Figure(key="kl", what=KL.what, at_most=2e-2), *SYNC),
            beside="checks",
        ),
        Step(
            name="kill",
            what="kill -9 of the engine inside a broadcast",
            work="tests.gpu.hour.loops:kill",
            cuda_s=85,
            cpu_s=60,
            figures=(
                UPDATES,
                Figure(key="replaced", what="engines replaced", at_least=1),
                PROBLEMS,
                Figure(key="back_s", what="until the next engine served that version", unit="s"),
                KL,
            ),
            beside="checks",
        ),
        Step(
            name="tests",
            what="pytest tests/gpu",
            work="tests.gpu.hour.checks:tests",
            cuda_s=180,
            figures=TESTS,
        ),
        Step(
            name="bench",
            what="rayzero bench all: what has no step of its own",
            work="tests.gpu.hour.speed:bench",
            cuda_s=55,
            cpu_s=20,
            figures=(
                Figure(key="ipc_s", what="0.6B by IPC, no engine", unit="ms"),
                Figure(key="host_s", what="0.6B over the host, no engine", unit="ms"),
                Figure(key="attention_tokens_per_s", what="attention, one layer, packed", unit="tokens/s"),
                Figure(key="sync_s", what="sync to an idle engine", unit="ms"),
                Figure(key="pause_s", what="of it, engine paused", unit="ms"),
                Figure(key="pipeline", what="simulated pipeline, strict, of its bound", unit="%"),
            ),
        ),
        Step(
            name="learner-4b",
            what="Qwen3-4B's shape: learner and head",
            work="tests.gpu.hour.speed:learner_4b",
            cuda_s=135,
            needs="CUDA: a CPU has not the memory",
            figures=_learner(26_000),
        ),
    ),
)

TWO_GPUS = Program(
    name="two_gpus",
    title="Two GPUs",
    num_gpus=2,
    steps=(
        Step(
            name="device",
            what="the machine",
            work="tests.gpu.hour.facts:device",
            cuda_s=20,
            figures=FIRST_HOUR.steps[0].figures,
        ),
        Step(
            name="nccl",
            what="learner and engine on a GPU each: weights over NCCL while it generates",
            work="tests.gpu.hour.loops:nccl",
            cuda_s=80,
            figures=(UPDATES, KL, CROSSED, *SYNC),
        ),
        Step(
            name="nccl-kill",
            what="kill -9 of the engine inside an NCCL broadcast",
            work="tests.gpu.hour.loops:nccl_kill",
            cuda_s=100,
            figures=(UPDATES, Figure(key="replaced", what="engines replaced", at_least=1), PROBLEMS, KL),
        ),
        Step(
            name="fsdp",
            what="Qwen3-0.6B's shape sharded over two GPUs: updates, checkpoint, resume",
            work="tests.gpu.hour.shards:step",
            cuda_s=110,
            figures=(
                Figure(key="updates", what="updates before and after the checkpoint"),
                Figure(
                    key="resume_difference", what="resumed against uninterrupted, of the way", unit="%", at_most=0.2
                ),
                Figure(key="peak_gib", what="memory high-water mark, the worse GPU", unit="GiB"),
                Figure(key="plan_gib", what="what the memory plan counts", unit="GiB"),
                Figure(key="of_plan", what="high-water mark ÷ plan", unit="%", at_most=1.0),
            ),
        ),
        Step(
            name="tests",
            what="pytest tests/gpu: tensor parallel, NCCL and FSDP besides",
            work="tests.gpu.hour.checks:tests",
            cuda_s=260,
            figures=TESTS,
        ),
    ),
)

PROGRAMS: Mapping[str, Program] = {program.name: program for program in (FIRST_HOUR, TWO_GPUS)}
