"""Models of the Hugging Face hub: the copy that is on this machine, and the download of one that is not."""

from __future__ import annotations

import contextlib
import queue
import threading
from pathlib import Path

from rayzero.services.schema.errors import RecipeError

FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
SMALL = ("config.json", "generation_config.json", "tokenizer*", "*.jinja", "vocab.json", "merges.txt", "*_map.json")
"""What is looked at before a run: sizes, tokenizer and template, some megabytes at most."""
SMALL_S = 12.0
"""For those; a hub that cannot be reached answers late or not at all."""
TWICE = ("consolidated*", "original/*")
"""The same weights once more, in the format of their makers."""


def cached(repository: str, revision: str | None) -> Path | None:
    """Its directory in the hub's own cache, whole or not; None where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError, FileNotFoundError):
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    return None


def download_small(repository: str, revision: str | None) -> Path:
    """Fetch what is looked at before a run into the hub's own cache, without the weights.

    Raises:
        RecipeError: the hub does not have it, or does not answer soon.
    """
    from huggingface_hub import snapshot_download

    ended: queue.Queue[Path | Exception] = queue.Queue()

    def fetch() -> None:
        try:
            ended.put(Path(snapshot_download(repository, revision=revision, allow_patterns=list(SMALL))))
        except Exception as error:
            # The hub's client raises the errors of whatever HTTP library it uses.
            ended.put(error)

    # A daemon: the client tries again for minutes, and the command is not to wait for it.
    threading.Thread(target=fetch, name="hub", daemon=True).start()
    try:
        found = ended.get(timeout=SMALL_S)
    except queue.Empty:
        found = TimeoutError()
    if isinstance(found, Path):
        return found
    raise RecipeError(
        f"model.path: {repository} is not in the local cache and its configuration cannot be fetched from the hub "
        f"({type(found).__name__}); name a local directory, or log in where it is private (hf auth login)"
    )


def download(repository: str, revision: str | None, instead: str) -> Path:
    """Fetch it into the hub's own cache. `instead`: other names that may be given, for the error.

    Raises:
        RecipeError: the hub does not have it, or does not answer.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(repository, revision=revision, allow_patterns=list(FILES), ignore_patterns=list(TWICE))
        )
    except GatedRepoError:
        raise RecipeError(
            f"model.path: {repository} is gated: accept its terms on the hub and log in (hf auth login)"
        ) from None
    except RepositoryNotFoundError:
        raise RecipeError(f"model.path: the hub knows no {repository}, or it is private (hf auth login)") from None
    except Exception as error:
        # The hub's client raises the errors of whatever HTTP library it uses.
        raise RecipeError(
            f"model.path: {repository} is not in the local cache and cannot be fetched from the hub "
            f"({type(error).__name__}); name a local directory, or one of {instead}"
        ) from None
