"""Times of day and calendar dates, in English, Chinese and digits."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rayzero.rewards.math.split import words

_MONTHS = {name: number for number, name in enumerate(
    words(
        "january february march april may june july august september october november december"
    ), 1
)}  # fmt: skip
_SHORT_MONTHS = {name[:3]: number for name, number in _MONTHS.items()} | {"sept": 9}
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?: *: *(?P<minute>\d{2})(?: *: *(?P<second>\d{2}))?)? *"
    r"(?P<half>[ap])\.? ?m\b\.?(?: in the (?:morning|afternoon|evening))?"
)
_OCLOCK = re.compile(r"(?P<hour>\d{1,2}) *o'? ?clock")
_CHINESE_CLOCK = re.compile(
    r"(?P<half>凌晨|早上|上午|中午|下午|傍晚|晚上|夜里)? *(?P<hour>\d{1,2}) *"
    r"(?:[:点时] *(?:(?P<minute>\d{1,2}) *分?|(?P<word>半|整|一刻|三刻))?)"
)
_COLON = re.compile(r"(?P<hour>\d{1,2}) *: *(?P<minute>\d\d)(?: *: *(?P<second>\d\d))?")
_ISO_DATE = re.compile(r"(?P<year>\d{4}) *[-/.年] *(?P<month>\d{1,2}) *[-/.月] *(?P<day>\d{1,2}) *[日号]?")
_CHINESE_DAY = re.compile(r"(?P<month>\d{1,2}) *月 *(?P<day>\d{1,2}) *[日号]")
_SLASH_DATE = re.compile(r"(?P<first>\d{1,2})[-/](?P<second>\d{1,2})[-/](?P<year>\d{4})")
_MONTH_DAY = re.compile(r"(?:the )?(?P<month>[a-z]{3,9})\.? *(?P<day>\d{1,2})(?:st|nd|rd|th)?(?:,? *(?P<year>\d{4}))?")
_DAY_MONTH = re.compile(
    r"(?:the )?(?P<day>\d{1,2})(?:st|nd|rd|th)?(?: of)? *(?P<month>[a-z]{3,9})\.?(?:,? *(?P<year>\d{4}))?"
)
_WEEKDAY = re.compile(r"^(?:mon|tues|wednes|thurs|fri|satur|sun)day,? +")


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day. `half` is "a" or "p" where the text says so; `hour` counts to 24 then."""

    hour: int
    minute: int
    second: int
    half: str


@dataclass(frozen=True, slots=True)
class Date:
    """A day; `year` is None where the text has none."""

    year: int | None
    month: int
    day: int


def read_clock(text: str) -> Clock | None:
    """A time that says that it is one (am, pm, o'clock, 点); `12:30` alone is `read_colon`'s."""
    plain = _plain(text)
    if plain in ("noon", "midday", "12 noon", "正午", "中午"):
        return Clock(12, 0, 0, "p")
    if plain in ("midnight", "12 midnight", "午夜"):
        return Clock(0, 0, 0, "a")
    if match := _CLOCK.fullmatch(plain):
        return _clock(match["hour"], match["minute"], match["second"], match["half"])
    if match := _OCLOCK.fullmatch(plain):
        return _clock(match["hour"], None, None, "")
    match = _CHINESE_CLOCK.fullmatch(plain)
    if (
        match
        and (match["half"] or "点" in plain or "时" in plain)
        and (match["minute"] or match["word"] or "点" in plain or match["half"])
    ):
        minute = {"半": "30", "一刻": "15", "三刻": "45"}.get(match["word"] or "", match["minute"])
        return _clock(match["hour"], minute, None, _chinese_half(match["half"], int(match["hour"])))
    return None


def read_colon(text: str) -> Clock | None:
    """`15:30` may be a time as well as a ratio."""
    match = _COLON.fullmatch(_plain(text))
    return _clock(match["hour"], match["minute"], match["second"], "") if match else None


def same_clock(answer: Clock, gold: Clock) -> bool:
    """A gold answer without am or pm accepts either; one with it wants it, or the same hour of 24."""
    if gold.half or answer.half == gold.half or not 0 < gold.hour <= 12:
        return (answer.hour, answer.minute, answer.second) == (gold.hour, gold.minute, gold.second)
    return (answer.hour % 12, answer.minute, answer.second) == (gold.hour % 12, gold.minute, gold.second) or (
        (answer.hour, answer.minute, answer.second) == (gold.hour, gold.minute, gold.second)
    )


def read_date(text: str) -> Date | None:
    """A date that can be read in one way only: 3/4/2024 cannot."""
    plain = _WEEKDAY.sub("", _plain(text))
    if match := _ISO_DATE.fullmatch(plain):
        return _date(match["year"], int(match["month"]), match["day"])
    if match := _CHINESE_DAY.fullmatch(plain):
        return _date(None, int(match["month"]), match["day"])
    if match := _SLASH_DATE.fullmatch(plain):
        first, second = int(match["first"]), int(match["second"])
        if (first > 12) == (second > 12) and first != second:
            return None  # which of them is the month depends on the country
        return _date(match["year"], min(first, second) if max(first, second) > 12 else first, str(max(first, second)))
    match = _MONTH_DAY.fullmatch(plain) or _DAY_MONTH.fullmatch(plain)
    if match:
        month = _MONTHS.get(match["month"]) or _SHORT_MONTHS.get(match["month"])
        return _date(match["year"], month, match["day"]) if month else None
    return None


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[⟪⟫]", " ", text)).strip().strip(".,").lower()


def _clock(hour: str, minute: str | None, second: str | None, half: str) -> Clock | None:
    h, m, s = int(hour), int(minute or 0), int(second or 0)
    if h > 24 or m > 59 or s > 59 or (half and h > 12 and half == "a"):
        return None
    if half == "p" and h < 12:
        h += 12
    if half == "a" and h == 12:
        h = 0
    return Clock(h, m, s, half)


def _chinese_half(word: str | None, hour: int) -> str:
    if word is None:
        return ""
    return "a" if word in ("凌晨", "早上", "上午") or (word == "中午" and hour == 11) else "p"


def _date(year: str | None, month: int, day: str) -> Date | None:
    if not (1 <= month <= 12 and 1 <= int(day) <= 31):
        return None
    return Date(int(year) if year else None, month, int(day))
