"""Numbers in words: `twenty-five`, `three quarters`, 三十五, 三分之二, 3.5亿. Only whole phrases are read."""

from __future__ import annotations

import re

from rayzero.rewards.math.split import words

_UNITS = {word: value for value, word in enumerate(
    words(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen"
    )
)}  # fmt: skip
_TENS = {
    word: 10 * value for value, word in enumerate(words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PARTS = {"half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
          "eighth": 8, "ninth": 9, "tenth": 10}  # fmt: skip
_CHINESE_DIGITS = dict(zip("零〇一二两三四五六七八九", (0, 0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9), strict=True))
_CHINESE_SCALES = {"十": 10, "百": 100, "千": 1000}
_CHINESE = "零〇一二两三四五六七八九十百千万亿"
_MULTIPLIERS = {
    "hundred": 10**2,
    "dozen": 12,
    **_SCALES,
    "百": 10**2,
    "千": 10**3,
    "万": 10**4,
    "亿": 10**8,
    "十万": 10**5,
    "百万": 10**6,
    "千万": 10**7,
    "万亿": 10**12,
}
_MULTIPLIED = re.compile(
    r"^(.*[\d}]) *⟪? *(hundred|dozen|thousand|million|billion|trillion|万亿|[十百千]万|"
    r"[百万亿]|千(?![克米瓦焦帕卡赫伏])) *⟫?"
    r"(?![\u4e00-\u9fff]*[一二三四五六七八九])(.*)$"
)
_CHINESE_PHRASE = re.compile(
    rf"^(?P<minus>负)?(?:(?P<whole>[{_CHINESE}]+|\d+)又)?(?:百分之(?P<percent>[{_CHINESE}]+|\d+(?:\.\d+)?)|(?P<below>[{_CHINESE}]+|\d+)分之(?P<above>[{_CHINESE}]+|\d+)"
    rf"|(?P<number>[{_CHINESE}]+)(?:点(?P<point>[零〇一二三四五六七八九]+))?)(?P<rest>.*)$"
)


_AND_A_PART = re.compile(
    r"^⟪? *(?P<whole>\d+|[A-Za-z][A-Za-z -]*?) and (?:a|one)[ -](?P<part>half|third|quarter|fourth|fifth|eighth)\b"
    r" *(?P<rest>[A-Za-z ]*?) *⟫?$",
    re.IGNORECASE,
)


def with_digits(text: str) -> str:
    """Rewrite a leading number in words to digits; other text comes back as it is."""
    if text.strip() in ("一半", "⟪一半⟫"):
        return "\\frac{1}{2}"
    text = re.sub(r"^(-?\d+)又 *(\d+)/(\d+)", r"\1\\frac{\2}{\3}", text)
    plain = text.replace("⟪", "").replace("⟫", "").strip() if re.fullmatch(r"⟪[^⟪⟫]*⟫", text.strip()) else text
    chinese = _CHINESE_PHRASE.match(plain)
    if chinese and (rewritten := _from_chinese(chinese)) is not None:
        return rewritten
    english = _from_english(plain)
    return _multiplied(english if english is not None else text)


def with_part(text: str) -> str:
    """Rewrite `two and a half hours` to a mixed number; other text comes back as it is."""
    match = _AND_A_PART.match(text)
    if match is None:
        return text
    whole = match["whole"] if match["whole"].isdigit() else _from_english(match["whole"])
    if whole is None or not whole.isdigit():
        return text
    rest = f" ⟪{match['rest']}⟫" if match["rest"] else ""
    return f"{whole}\\frac{{1}}{{{_PARTS[match['part'].lower()]}}}{rest}"


def _multiplied(text: str) -> str:
    """`3.5 million` and 3.5亿."""
    match = _MULTIPLIED.match(text)
    if match is None:
        return text
    number, word, rest = match.groups()
    return f"{number}*{_MULTIPLIERS[word]}{' ' + rest if rest else ''}"


def _from_english(text: str) -> str | None:
    words = re.sub(r"^ *- *(?=[a-z])", "minus ", text.lower()).replace("-", " ").split()  # -one is not one
    if words[:2] in (["half", "an"], ["half", "a"]):
        return _joined("", "\\frac{1}{2}", words[2:])
    if words[:2] == ["a", "dozen"]:
        return _joined("", "12", words[2:])
    if not words or not words[0].isalpha() or len(words) > 20:
        return None
    sign = ""
    if words[0] in ("negative", "minus"):
        sign, words = "-", words[1:]
    used, value = _leading_english_number(words)
    if (used and used < len(words) and words[used].removesuffix("s") in _PARTS) or (
        used < len(words) and words[used] == "halves"
    ):
        part = words[used] if words[used] == "halves" else words[used].removesuffix("s")
        return _joined(sign, f"\\frac{{{value}}}{{{_PARTS[part]}}}", words[used + 1 :]) if used else None
    if not used:
        if words[:1] == ["half"] or words[:2] == ["a", "half"]:
            return _joined(sign, "\\frac{1}{2}", words[1 if words[0] == "half" else 2 :])
        return None
    return _joined(sign, str(value), words[used:])


def _joined(sign: str, number: str, rest: list[str]) -> str:
    return f"{sign}{number} {' '.join(rest)}".strip()


def _leading_english_number(words: list[str]) -> tuple[int, int]:
    """How many words make a number, and its value."""
    total = current = used = 0
    previous = ""
    for index, word in enumerate(words):
        if word in _UNITS and not (previous in _UNITS or (previous in _TENS and not 0 < _UNITS[word] < 10)):
            current += _UNITS[word]
        elif word in _TENS and previous not in _UNITS and previous not in _TENS:
            current += _TENS[word]
        elif word == "hundred" and 0 < current < 100:
            current *= 100
        elif word in _SCALES and current:
            total, current = total + current * _SCALES[word], 0
        elif (
            word == "and"
            and previous in ("hundred", *_SCALES)
            and words[index + 1 : index + 2]
            and words[index + 1] in {**_UNITS, **_TENS}
        ):
            previous = word
            continue
        else:
            break
        used, previous = index + 1, word
    return used, total + current


def _from_chinese(match: re.Match[str]) -> str | None:
    rest, minus = match["rest"], "-" if match["minus"] else ""
    if rest.startswith("次") and len(rest) > 1:  # 二次函数 is a kind of function
        return None
    if match["percent"]:
        value = match["percent"] if match["percent"][0].isdigit() else _chinese_value(match["percent"])
        return None if value is None else f"{minus}{value}%{rest}"
    if match["below"]:
        below, above = _any_value(match["below"]), _any_value(match["above"])
        whole = "" if not match["whole"] else _any_value(match["whole"])
        return (
            None
            if below is None or above is None or whole is None
            else f"{minus}{whole}\\frac{{{above}}}{{{below}}}{rest}"
        )
    number = _chinese_value(match["number"])
    if number is None or match["whole"]:
        return None
    decimals = "." + "".join(str(_CHINESE_DIGITS[char]) for char in match["point"]) if match["point"] else ""
    return f"{minus}{number}{decimals}{rest}"


def _any_value(text: str) -> str | int | None:
    return text if text[0].isdigit() else _chinese_value(text)


def _chinese_value(text: str) -> int | None:
    """Value of 三千零五十, 一亿二千万 or 二〇二四; None where the characters make no number."""
    if len(text) > 20:
        return None
    if len(text) > 1 and all(char in _CHINESE_DIGITS for char in text):
        return int("".join(str(_CHINESE_DIGITS[char]) for char in text))
    total = section = digit = 0
    last_scale = 10**9
    for char in text:
        if char in _CHINESE_DIGITS:
            if digit:
                return None
            digit = _CHINESE_DIGITS[char]
            last_scale = 10**9 if char in "零〇" else last_scale
        elif char in _CHINESE_SCALES:
            if _CHINESE_SCALES[char] >= last_scale:
                return None
            last_scale = _CHINESE_SCALES[char]
            section += (digit or 1) * last_scale
            digit = 0
        else:
            section += digit
            total = (total + section) * 10**8 if char == "亿" else total + section * 10**4
            section, digit, last_scale = 0, 0, 10**9
    return total + section + digit
