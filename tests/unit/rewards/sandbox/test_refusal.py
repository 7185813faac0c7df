from rayzero.rewards.sandbox.refusal import explain


def test_a_refusal_names_reasons_and_fixes() -> None:
    text = explain({"bwrap": "bubblewrap is not installed", "landlock": "too old"})
    assert "bwrap: bubblewrap is not installed" in text
    assert "landlock: too old" in text
    assert "apt install bubblewrap" in text
    assert "sandbox: unsafe" in text


def test_a_masked_proc_is_named_with_what_unmasks_it() -> None:
    text = explain({"bwrap": "bwrap: Can't mount proc on /newroot/proc: Operation not permitted"})
    assert "/proc is masked" in text
    assert "systempaths=unconfined" in text
    assert "procMount: Unmasked" in text and "hostUsers: false" in text
    assert "apt install" not in text
