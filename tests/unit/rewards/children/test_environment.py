"""What children inherit of the environment."""

from __future__ import annotations

import pytest

from rayzero.rewards.children.environment import without_secrets
from rayzero.rewards.children.pool import ChildPool
from rayzero.rewards.kinds.custom import CustomReward
from rayzero.rewards.registry import Capacity, build_reward
from rayzero.services.schema.config.reward_components import CustomComponent

SECRETS = (
    "RAY_AUTH_TOKEN", "RAYZERO_API_TOKEN", "HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "OPENAI_API_KEY", "PGPASSWORD", "DB_PASS", "MYSQL_PWD", "GOOGLE_APPLICATION_CREDENTIALS", "SSH_AUTH_SOCK",
    "GITHUB_PAT", "client_secret", "apikey", "SENTRY_DSN", "AZURE_STORAGE_SAS",
)  # fmt: skip
HARMLESS = (
    "PATH", "PWD", "OLDPWD", "HOME", "LANG", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
    "PYTHONPATH", "KEYBOARD", "TMPDIR", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "RAY_ADDRESS",
)  # fmt: skip


def test_what_looks_like_a_secret_is_left_out() -> None:
    environment = dict.fromkeys((*SECRETS, *HARMLESS), "x")
    environment["https_proxy"] = "http://user:word@proxy:3128"
    environment["no_proxy"] = "http://proxy:3128/a@b"
    assert set(without_secrets(environment)) == {*HARMLESS, "no_proxy"}


def test_a_token_of_a_known_form_is_one_under_any_name() -> None:
    letters = "Ab0" * 20
    for value in (
        f"hf_{letters}", f"sk-proj-{letters}", f"ghp_{letters}", f"github_pat_{letters}", f"glpat-{letters}",
        f"xoxb-{letters}", "AKIAABCDEFGHIJKLMNOP", f"AIza{letters}", f"eyJ{letters}.eyJ{letters}.x",
        f"https://ghp_{letters}@github.com/a/b", "-----BEGIN RSA PRIVATE KEY-----",
    ):  # fmt: skip
        assert not without_secrets({"UPSTREAM": value}), value
    harmless = ("sk-learn", "hf_hub", "/data/hf_cache/model", "task-" + "a" * 40, "AKIA", "ghp_", "a" * 10**6)
    assert all(without_secrets({"UPSTREAM": value}) for value in harmless)


def test_a_recipe_hands_over_one_by_name() -> None:
    assert without_secrets({"A_TOKEN": "1", "B_TOKEN": "2"}, ["A_TOKEN"]) == {"A_TOKEN": "1"}


async def test_children_hold_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary")
    monkeypatch.setenv("JUDGE_API_KEY", "wanted")
    pool = ChildPool("tests.unit.rewards.child_functions:worker", num_children=1, deadline_s=60, memory_bytes=2**28,
                     environment=["JUDGE_API_KEY"])  # fmt: skip
    try:
        assert (await pool.run(("environment", "RAY_AUTH_TOKEN"))).result is None
        assert (await pool.run(("environment", "JUDGE_API_KEY"))).result == "wanted"
    finally:
        await pool.close()


def test_the_recipe_says_which_a_function_of_its_own_gets() -> None:
    component = CustomComponent(function="my:reward", environment=("JUDGE_API_KEY",))
    reward = build_reward(component, Capacity(num_children=1))
    assert isinstance(reward, CustomReward) and reward.pool.environment == ("JUDGE_API_KEY",)
