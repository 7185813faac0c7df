"""What the Grafana dashboards show: Run, Flow, Workers and sync, Rewards.

Every panel's PromQL names only families of the catalogue (services/observe/telemetry.py) or Ray's: a test holds it to
that, and another runs all of it against a Prometheus that scrapes a run.
"""

from __future__ import annotations

from rayzero.services.observe.monitoring.episode_panels import EPISODES
from rayzero.services.observe.monitoring.panels import SELECTED, Dashboard, Panel, gauge, quantile, rate, share, stat

RUN = Dashboard(
    "rayzero-run",
    "Run",
    (
        stat("Update", f"rayzero_update{SELECTED}"),
        stat("Progress", f"rayzero_update{SELECTED} / rayzero_updates_target{SELECTED}", "percentunit"),
        stat("Reward", f"rayzero_reward_mean{SELECTED}"),
        stat("Held-out accuracy", f"rayzero_evaluation_accuracy_ratio{SELECTED}", "percentunit"),
        stat("Completion tokens a second", rate("worker_tokens_total", "run", "2m")),
        stat("Since the last update", f"time() - rayzero_last_update_timestamp_seconds{SELECTED}", "s"),
        Panel(
            "Reward and its components",
            (
                (f"rayzero_reward_mean{SELECTED}", "{{run}} reward"),
                (f"rayzero_reward_component_mean{SELECTED}", "{{run}} {{reward}}"),
            ),
            help="Mean of the last batch. Is it learning?",
        ),
        Panel(
            "Accuracy",
            (
                (f"rayzero_evaluation_accuracy_ratio{SELECTED}", "{{run}} held out"),
                (f"rayzero_evaluation_accuracy_error{SELECTED}", "{{run}} its standard error"),
                (f"rayzero_evaluation_greedy_accuracy_ratio{SELECTED}", "{{run}} held out, greedy"),
                (f"rayzero_train_accuracy_ratio{SELECTED}", "{{run}} training"),
            ),
            "percentunit",
        ),
        Panel(
            "Length of completions, share cut off",
            (
                (f"rayzero_completion_tokens_mean{SELECTED}", "{{run}} mean tokens"),
                (quantile(0.95, "completion_tokens"), "{{run}} p95 tokens"),
            ),
        ),
        Panel(
            "Length bias: trained against begun",
            gauge("length_bias_ratio"),
            "percentunit",
            help="Below nought long completions are dropped: training.on_stale: drop, over_provision.",
        ),
        Panel(
            "Entropy of a token", gauge("entropy_nats"), help="Falls as the policy makes up its mind; not to nought."
        ),
        Panel(
            "KL",
            (
                (f"rayzero_kl_rollout_nats{SELECTED}", "{{run}} sampler to learner"),
                (f"rayzero_kl_canary_nats{SELECTED}", "{{run}} scored by both"),
                (f"rayzero_kl_reference_nats{SELECTED}", "{{run}} to the reference"),
            ),
            help="Sampler to learner grows with staleness; scored by both, at equal weights, it must stay near nought; "
            "to the reference only where learner.kl.beta is above it.",
        ),
        Panel("Gradient norm", gauge("grad_norm")),
        Panel(
            "Clipped tokens, ratios outside 0.8 to 1.2",
            (
                (f"rayzero_clipped_ratio{SELECTED}", "{{run}} clipped"),
                (f"rayzero_outside_ratio{SELECTED}", "{{run}} outside"),
            ),
            "percentunit",
        ),
        Panel("Effective sample size", gauge("effective_sample_ratio"), "percentunit"),
        Panel(
            "Groups that teach nothing, completions cut off",
            (
                (f"rayzero_uniform_groups_ratio{SELECTED}", "{{run}} uniform groups"),
                (f"rayzero_truncated_ratio{SELECTED}", "{{run}} cut off"),
            ),
            "percentunit",
        ),
        Panel("Loss", gauge("loss")),
        Panel("Learning rate", gauge("learning_rate")),
        Panel(
            "Largest log-probability gap, sampler to learner",
            gauge("logprob_gap_max_nats"),
        ),
    ),
)

FLOW = Dashboard(
    "rayzero-flow",
    "Flow",
    (
        Panel(
            "Who waits: the training loop",
            ((share("loop_seconds_total", "phase"), "{{run}} {{phase}}"),),
            "percentunit",
            width=12,
            stack=True,
            help="`wait`: the learner waits for groups. Scale rollouts up, or raise max_staleness.",
        ),
        Panel(
            "The learner's time",
            ((share("learner_seconds_total", "phase"), "{{run}} {{phase}}"),),
            "percentunit",
            width=12,
            stack=True,
        ),
        Panel(
            "Groups on their way",
            ((f"rayzero_groups_live{SELECTED}", "{{run}} {{state}}"),),
            stack=True,
        ),
        Panel("Longest wait in each state", ((f"rayzero_groups_oldest_seconds{SELECTED}", "{{run}} {{state}}"),), "s"),
        Panel(
            "Staleness when trained on",
            (
                (quantile(0.5, "staleness_versions"), "{{run}} p50"),
                (quantile(0.95, "staleness_versions"), "{{run}} p95"),
                (f"rayzero_max_staleness_versions{SELECTED}", "{{run}} bound"),
                (f"rayzero_groups_past_bound_total{SELECTED}", "{{run}} groups past it"),
            ),
        ),
        Panel(
            "Versions that an evaluation was sampled from",
            gauge("evaluation_versions"),
            help="1 unless evaluation.on_new_weights is mix, or every engine was lost.",
        ),
        Panel(
            "Completion tokens a second by worker",
            ((rate("worker_tokens_total", "run, worker"), "{{run}} {{worker}}"),),
            stack=True,
        ),
        Panel("Groups a second by their end", ((rate("groups_total", "run, outcome"), "{{run}} {{outcome}}"),)),
        Panel(
            "Groups dropped, by reason",
            ((f"sum by (run, reason) (increase(rayzero_groups_dropped_total{SELECTED}[5m]))", "{{run}} {{reason}}"),),
            needs="dropped groups",
        ),
        Panel(
            "Tokens thrown away, by reason",
            (
                (rate("tokens_dropped_total", "run, reason"), "{{run}} {{reason}}"),
                (rate("tokens_aborted_total", "run"), "{{run}} given up on the way"),
            ),
            needs="dropped groups",
        ),
        Panel(
            "Whole batches that waited for a late group",
            ((f"increase(rayzero_batches_held_total{SELECTED}[5m])", "{{run}}"),),
            help="Raise max_staleness. training.over_provision and on_stale: drop wait for fewer of them, and train on "
            "shorter completions: see the length bias.",
        ),
        Panel(
            "Prompts passed over, by why",
            ((rate("prompts_passed_over_total", "run, why"), "{{run}} {{why}}"),),
            needs="a curriculum",
        ),
        Panel(
            "Completions a second of more than one version",
            ((rate("completions_mixed_total", "run"), "{{run}}"),),
            help="New weights came while they were sampled (rollout.on_weights).",
        ),
        Panel(
            "How completions end",
            ((share("completions_total", "finish_reason"), "{{run}} {{finish_reason}}"),),
            "percentunit",
            stack=True,
        ),
        Panel(
            "GPU use by node (Ray)",
            (("avg by (instance) (ray_node_gpus_utilization)", "{{instance}}"),),
            "percent",
            needs="GPUs",
        ),
    ),
)

WORKERS = Dashboard(
    "rayzero-workers",
    "Workers and sync",
    (
        Panel(
            "Workers, and how many there should be",
            (
                ('sum by (run, role) (rayzero_workers{run=~"$run",state="serving"})', "{{run}} {{role}} serving"),
                (f"rayzero_workers_target{SELECTED}", "{{run}} {{role}} target"),
            ),
        ),
        Panel(
            "Workers by state", ((f"sum by (run, role, state) (rayzero_workers{SELECTED}) > 0", "{{role}} {{state}}"),)
        ),
        Panel(
            "Workers replaced",
            ((f"sum by (run, role) (increase(rayzero_worker_restarts_total{SELECTED}[5m]))", "{{run}} {{role}}"),),
        ),
        Panel(
            "Version each rollout worker serves",
            (
                (f"rayzero_worker_version{SELECTED}", "{{run}} {{worker}}"),
                (f"rayzero_update{SELECTED}", "{{run}} learner"),
            ),
        ),
        Panel("Versions behind", ((f"rayzero_worker_lag_versions{SELECTED}", "{{run}} {{worker}}"),)),
        Panel("Groups in flight", ((f"rayzero_worker_in_flight{SELECTED}", "{{run}} {{worker}}"),), stack=True),
        Panel("Groups an engine may hold", ((f"rayzero_worker_limit{SELECTED}", "{{run}} {{worker}}"),)),
        Panel("Completions waiting inside", ((f"rayzero_worker_waiting{SELECTED}", "{{run}} {{worker}}"),)),
        Panel(
            "Key-value memory in use", ((f"rayzero_worker_kv_ratio{SELECTED}", "{{run}} {{worker}}"),), "percentunit"
        ),
        Panel(
            "Sync: update ready to every engine served",
            (
                (quantile(0.5, "sync_seconds"), "{{run}} p50"),
                (quantile(0.95, "sync_seconds"), "{{run}} p95"),
            ),
            "s",
        ),
        Panel("Engine paused in a sync", ((quantile(0.95, "sync_pause_seconds"), "{{run}} p95"),), "s"),
        Panel("Broadcasts repeated", ((f"increase(rayzero_sync_failures_total{SELECTED}[5m])", "{{run}}"),)),
        Panel("Driver's event loop: lag", gauge("loop_lag_seconds"), "s"),
        Panel("Driver's memory", (('process_resident_memory_bytes{run=~"$run"}', "{{run}} {{instance}}"),), "bytes"),
        Panel(
            "Disk of the run directory: free",
            ((f"rayzero_disk_free_bytes{SELECTED} / rayzero_disk_size_bytes{SELECTED}", "{{run}}"),),
            "percentunit",
        ),
        Panel("Scraped targets", (('up{run=~"$run"}', "{{run}} {{instance}}"),)),
        Panel(
            "Age of the last checkpoint",
            ((f"time() - rayzero_last_checkpoint_timestamp_seconds{SELECTED} > 0", "{{run}}"),),
            "s",
        ),
        Panel(
            "Updates a minute",
            ((f"60 * rate(rayzero_updates_total{SELECTED}[5m])", "{{run}}"),),
        ),
    ),
)

REWARDS = Dashboard(
    "rayzero-rewards",
    "Rewards",
    (
        Panel(
            "Verdicts by status",
            ((share("verdicts_total", "status"), "{{run}} {{status}}"),),
            "percentunit",
            stack=True,
        ),
        Panel("Verdicts a second by data source", ((rate("verdicts_total", "run, source"), "{{run}} {{source}}"),)),
        Panel(
            "Errors by cause",
            ((rate("verdict_errors_total", "run, cause"), "{{run}} {{cause}}"),),
            needs="verdicts that are errors",
            help="An error is never a reward of 0: those rollouts leave their groups.",
        ),
        Panel("Score of each reward", ((f"rayzero_reward_component_mean{SELECTED}", "{{run}} {{reward}}"),)),
        Panel(
            "Time of a verdict",
            ((quantile(0.5, "verdict_seconds"), "{{run}} p50"), (quantile(0.95, "verdict_seconds"), "{{run}} p95")),
            "s",
        ),
        Panel(
            "Groups with signal",
            ((share("groups_total", "outcome"), "{{run}} {{outcome}}"),),
            "percentunit",
            stack=True,
            help="Only `mixed` groups teach.",
        ),
        Panel(
            "Rewards of completions",
            ((f"sum by (le) (increase(rayzero_rollout_reward_bucket{SELECTED}[1m]))", "{{le}}"),),
            kind="heatmap",
            width=12,
        ),
        Panel(
            "Spread of rewards",
            (
                (f"rayzero_reward_std{SELECTED}", "{{run}} standard deviation"),
                (f"rayzero_advantage_abs_mean{SELECTED}", "{{run}} mean absolute advantage"),
            ),
            width=12,
        ),
        *EPISODES,
    ),
)

DASHBOARDS: tuple[Dashboard, ...] = (RUN, FLOW, WORKERS, REWARDS)
