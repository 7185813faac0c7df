"""Models of the Hugging Face hub: the copy that is on this machine, and the download of one that is not."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rayzero.services.schema.errors import RecipeError

FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
TWICE = ("consolidated*", "original/*")
"""The same weights once more, in the format of their makers."""


def cached(repository: str, revision: str | None) -> Path | None:
    """Its directory in the hub's own cache, whole or not; None where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with contextlib.suppress(LocalEntryNotFoundError, FileNotFoundError):
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    return None


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
