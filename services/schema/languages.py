"""The languages that the language reward knows."""

from __future__ import annotations

LANGUAGES = {
    "en": "English",
    "zh": "Chinese",
    "ja": "Japanese",
    "ko": "Korean",
    "ru": "Russian",
    "ar": "Arabic",
    "he": "Hebrew",
    "hi": "Hindi",
    "th": "Thai",
    "el": "Greek",
    "fr": "French",
    "de": "German",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
}


def language_code(name: str) -> str:
    """`zh` of `zh`, `zh-CN`, `ZH_hans` and `Chinese`. Raises ValueError, naming those that are known."""
    wanted = name.strip().lower()
    for code, english in LANGUAGES.items():
        if wanted == english.lower() or wanted.replace("_", "-").split("-")[0] == code:
            return code
    raise ValueError(f"unknown language {name!r}; known: {', '.join(LANGUAGES)}")
