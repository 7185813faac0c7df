"""Units of measure: what a unit's text denotes, as exponents of base dimensions and an exact factor.

`parse_unit("km/h")` is 5/18 of length¹·time⁻¹. A noun that is no unit (`apples`) is a dimension of its own, so that
apples equal apples and no metres. Angles in degrees and percentages are units here as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cache

from rayzero.rewards.math.split import words


@dataclass(frozen=True, slots=True)
class Unit:
    """A product of powers of dimensions, times a factor."""

    dimensions: Mapping[str, int]
    factor: Fraction = Fraction(1)
    noun: bool = field(default=False, compare=False)
    """Made of words that no table knows: what is counted."""
    substance: str = field(default="", compare=False)
    """`flour` in cups of flour."""

    def commensurable(self, other: Unit) -> bool:
        """Measures the same thing, so that values may be compared after conversion."""
        of_both = self.substance and other.substance
        return self.dimensions == other.dimensions and (not of_both or self.substance == other.substance)

    def without(self, currencies: frozenset[str]) -> Unit:
        """The same without those dimensions: $3 per hour is 3 per hour."""
        return Unit({name: e for name, e in self.dimensions.items() if name not in currencies}, self.factor, self.noun)

    def times(self, other: Unit, power: int = 1) -> Unit:
        """self · other^power."""
        dimensions = dict(self.dimensions)
        for name, exponent in other.dimensions.items():
            dimensions[name] = dimensions.get(name, 0) + exponent * power
        return Unit(
            {name: e for name, e in dimensions.items() if e}, self.factor * other.factor**power, self.noun or other.noun
        )


NO_UNIT = Unit({})
CURRENCIES = frozenset(["dollar", "euro", "pound sterling", "yuan", "yen", "rupee"])
PERCENT = Unit({"percent": 1})
DEGREE = Unit({"angle in degrees": 1})
ORDINAL = Unit({"place in an order": 1})
"""`7th` is 7 where nothing is counted, and never 7 books."""

_MAX_NOUN_WORDS = 3
_L, _M, _T = {"length": 1}, {"mass": 1}, {"time": 1}
_FORCE = {"mass": 1, "length": 1, "time": -2}
_ENERGY = {"mass": 1, "length": 2, "time": -2}
_POWER = {"mass": 1, "length": 2, "time": -3}
_PRESSURE = {"mass": 1, "length": -1, "time": -2}
_TABLE: tuple[tuple[dict[str, int], str, str], ...] = (
    # dimensions, factor, spellings
    (_L, "1", "m meter metre 米"),
    (_L, "1/10", "dm decimeter decimetre 分米"),
    (_L, "1/100", "cm centimeter centimetre 厘米 公分"),
    (_L, "1/1000", "mm millimeter millimetre 毫米"),
    (_L, "1/1000000", "μm \\mu@m micrometer micron 微米"),
    (_L, "1/1000000000", "nm nanometer nanometre 纳米"),
    (_L, "1000", "km kilometer kilometre 千米 公里"),
    (_L, "500", "里"),
    (_L, "127/5000", "in inch inches 英寸"),
    (_L, "381/1250", "ft foot feet 英尺"),
    (_L, "1143/1250", "yd yard 码"),
    (_L, "201168/125", "mi mile 英里"),
    (_L, "1852", "nauticalmile 海里"),
    (_M, "1", "kg kilogram kilo 千克 公斤"),
    (_M, "1/1000", "g gram 克"),
    (_M, "1/1000000", "mg milligram 毫克"),
    (_M, "1000", "tonne 吨"),
    (_M, "1/2", "斤"),
    (_M, "45359237/100000000", "lb lbs pound"),
    (_M, "45359237/1600000000", "oz ounce"),
    ({"ton": 1}, "1", "ton"),  # short, long or metric: comparable with itself alone
    (_T, "1", "s sec second 秒 秒钟"),
    (_T, "1/1000", "ms millisecond 毫秒"),
    (_T, "60", "min minute 分钟 分"),
    (_T, "3600", "h hr hour 小时 时 个小时"),
    (_T, "86400", "day 天 日"),
    (_T, "604800", "week wk 周 星期 个星期"),
    ({"month": 1}, "1", "month 月 个月"),
    ({"month": 1}, "12", "year yr yearold yearsold 年 岁"),
    ({"length": 3}, "1/1000", "L l liter litre 升"),
    ({"length": 3}, "1/1000000", "mL ml milliliter millilitre cc 毫升"),
    # Of the US or imperial: comparable with its own parts alone.
    ({"gallon": 1}, "1", "gallon gal 加仑"),
    ({"gallon": 1}, "1/4", "quart qt"),
    ({"gallon": 1}, "1/8", "pint pt"),
    ({"gallon": 1}, "1/16", "cup"),
    ({"length": 2}, "10000", "hectare ha 公顷"),
    ({"length": 2}, "2000/3", "亩"),
    ({"acre": 1}, "1", "acre"),
    ({"length": 1, "time": -1}, "1397/3125", "mph"),
    ({"length": 1, "time": -1}, "5/18", "kph kmh kmph"),
    (_FORCE, "1", "N newton 牛 牛顿"),
    (_ENERGY, "1", "J joule 焦 焦耳"),
    (_ENERGY, "1000", "kJ kilojoule 千焦"),
    (_ENERGY, "3600000", "kWh"),
    ({"calorie": 1}, "1", "cal calorie 卡"),
    ({"calorie": 1}, "1000", "kcal"),
    (_POWER, "1", "W watt 瓦 瓦特"),
    (_POWER, "1000", "kW kilowatt 千瓦"),
    (_PRESSURE, "1", "Pa pascal 帕 帕斯卡"),
    (_PRESSURE, "1000", "kPa kilopascal 千帕"),
    ({"time": -1}, "1", "Hz hertz 赫兹"),
    ({"time": -1}, "1000", "kHz"),
    ({"time": -1}, "1000000", "MHz"),
    ({"volt": 1}, "1", "V volt 伏 伏特"),
    ({"ampere": 1}, "1", "A amp ampere 安 安培"),
    ({"ohm": 1}, "1", "Ω \\Omega ohm 欧 欧姆"),
    ({"coulomb": 1}, "1", "C coulomb 库仑"),
    ({"kelvin": 1}, "1", "K kelvin"),
    ({"mol": 1}, "1", "mol mole 摩尔"),
    ({"celsius": 1}, "1", "°C °⟪C⟫ degCelsius degreeCelsius Celsius 摄氏度"),
    ({"fahrenheit": 1}, "1", "°F °⟪F⟫ degreeFahrenheit Fahrenheit 华氏度"),
    ({"angle in degrees": 1}, "1", "° deg degree 度"),
    ({"angle in radians": 1}, "1", "rad radian 弧度"),
    ({"percent": 1}, "1", "% percent percentage pct 百分点 个百分点"),
    ({"percent": 1}, "1/10", "‰"),
    ({"percentage point": 1}, "1", "percentagepoint"),
    ({"dollar": 1}, "1", "$ dollar USD US$ 美元 buck"),
    ({"dollar": 1}, "1/100", "¢ cent 美分"),
    ({"euro": 1}, "1", "€ euro EUR 欧元"),
    ({"pound sterling": 1}, "1", "£ GBP 英镑"),
    ({"yuan": 1}, "1", "¥ yuan RMB CNY 元 块 块钱 元钱 人民币"),
    ({"yuan": 1}, "1/10", "角 毛"),
    ({"yen": 1}, "1", "yen JPY 日元 円"),
    ({"rupee": 1}, "1", "₹ rupee Rs Rs. INR"),
    ({"unit": 1}, "1", "unit 单位 个单位"),
    ({"byte": 1}, "1", "byte B 字节"),
    ({"byte": 1}, "1000", "kB KB kilobyte"),
    ({"byte": 1}, "1000000", "MB megabyte"),
    ({"byte": 1}, "1000000000", "GB gigabyte"),
    ({"byte": 1}, "1/8", "bit 比特"),
)
_COUNTERS = frozenset(
    words(
        "个 只 本 支 辆 棵 张 条 件 名 位 人 次 种 箱 袋 瓶 盒 颗 朵 头 匹 台 套 对 "
        "双 页 道 题 组 步 把 块 家 间 座 杯 项 场 票 分 枚 段 类 根 片 盆 车 倍"
    )
)
"""Chinese measure words: each is a noun of its own."""
_SINGLE_LETTER = frozenset("mgshLlNJWVAKBC")
"""Units that could also be a variable: they need a space, or to stand as text."""
_NOT_NOUNS = frozenset(
    words(
        "or and not nor but is are was if then than less times at most least about approximately around "
        "nearly almost over under between to from either maybe perhaps possibly probably plus minus point "
        "half quarter third million billion trillion thousand hundred dozen score pair squared cubed square "
        "cubic sq cu of the by with without no none any all some where when per answer correct wrong true "
        "false mod modulo base pi sqrt sin cos tan log ln infinity percent degree degrees we get have so thus "
        "hence therefore a an i it this that these those could be can may might would should must also which "
        "for as equals equal solution remainder ie eg etc am pm ad bc bce ce first second option "
        "choice ignore only else otherwise except instead actually wait both each every alpha beta gamma "
        "delta theta lambda sigma omega phi psi rho tau epsilon "
        "yes dne undefined neither even odd prime infinitely infinite impossible increasing decreasing converges "
        "diverges exist exists unknown none "
        "zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty"
    )
)
_NOT_ATTACHED = frozenset(words("nm ms mi pt ha in cc gal"))
"""Units that need a space as well, because letters multiply: 3nm."""
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3, "平方": 2, "立方": 3}
_OF = re.compile(r"^(⟪? *[A-Za-z]+) +of +(?:the +|a +|an +)?([A-Za-z]{3,}(?: [A-Za-z]{3,})?)( *⟫)?$")
_TOKEN = re.compile(
    r" *(?:(?P<power>\^ *\{? *(?P<exponent>-?\d) *\}?)|(?P<over>/|\b(?:per|an?)\b)|(?P<times>\*|·|-(?=[A-Za-z]))|"
    r"(?P<word>° *(?:⟪ *)?[CF]\b(?: *⟫)?|°|%|‰|[$€£¥₹¢Ω]|US\$|\\(?:mu|Omega) ?m?|"
    r"Rs\.|[A-Za-z]+\.?|[\u4e00-\u9fff]+)|(?P<mark>[⟪⟫(){}]))"
)


def parse_unit(text: str, *, allow_noun: bool = True) -> Unit | None:
    """Read the whole text as a unit, or, where `allow_noun`, as up to three words that name what is counted."""
    if len(text) > 80:
        return None
    measured = _OF.match(text)
    if measured:
        unit = parse_unit(measured[1], allow_noun=False)
        return None if unit is None else replace(unit, substance=_singular(measured[2].lower()))
    text = re.sub(r"^\\frac *\{([^{}]*)\} *\{((?:[^{}]|\{\d\})*)\}$", r"\1/\2", text)
    tokens = _tokens(text)
    if not tokens:
        return None
    known = _known(tokens)
    return known if known is not None or not allow_noun else _noun(text)


@cache
def _spellings() -> dict[str, Unit]:
    units = {}
    for dimensions, factor, spellings in _TABLE:
        for spelling in spellings.split():
            units[spelling.replace("@", " ")] = Unit(dimensions, Fraction(factor))
    return units


def _word(word: str) -> Unit | None:
    """A unit by its spelling: exactly, or a long one in any case and in the plural."""
    table = _spellings()
    if word in table:
        return table[word]
    lower = word.lower().rstrip(".")
    # One letter counts in its own case alone: M is no metre, and K no kilo.
    if lower in table and (len(lower) > 1 or word[-1:] == "."):
        return table[lower]
    for plural in ("es", "s"):
        if lower.endswith(plural) and len(lower) > 2 + (plural == "es") and lower[: -len(plural)] in table:
            return table[lower[: -len(plural)]]
    return table.get(word.rstrip("."))


def _tokens(text: str) -> list[re.Match[str]] | None:
    found = []
    position = 0
    text = re.sub(r"(?i)\bnautical miles?\b", "nauticalmile", text)
    text = re.sub(r"(?i)\byears? old\b", "year", re.sub(r"(?i)\bpercentage points?\b", "percentagepoint", text))
    text = re.sub(r"(?i)\bper cent\b", "percent", text)
    text = re.sub(r"(?i)\bdegrees? (celsius|fahrenheit)\b", r"\1", text)
    text = re.sub(r"° *(?:⟪ *)?([CF])(?: *⟫)?$", r"°\1", text)
    text = re.sub(r"^\((.*)\)$", r"\1", text.strip()).strip().replace("每", "/")
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        if not match["mark"]:
            found.append(match)
        position = match.end()
    return found


def _known(tokens: list[re.Match[str]]) -> Unit | None:
    """Product and quotient of known units; None where a word is unknown."""
    unit, sign, pending, last = NO_UNIT, 1, 1, None
    for token in tokens:
        if token["over"]:
            if sign == -1:
                return None  # a/b/c can be read in two ways
            sign, last = -1, None
        elif token["power"]:
            if last is None or abs(int(token["exponent"])) > 4:
                return None
            unit, last = unit.times(last, sign * (int(token["exponent"]) - 1)), None
        elif token["word"]:
            if token["word"].lower() in ("squared", "cubed"):
                if last is None:
                    return None
                unit = unit.times(last, sign * (_POWERS[token["word"].lower()] - 1))
                continue
            read = _powered_word(token["word"], pending)
            if read is None:
                return None
            one, pending = read
            if one is not None:
                unit, last = unit.times(one, sign), one
    return unit if pending == 1 and unit.dimensions else None


def _powered_word(word: str, pending: int) -> tuple[Unit | None, int] | None:
    """A unit, or a word like `square` that raises the next one; Chinese joins both: 平方米."""
    name = word.lower().rstrip(".")
    if name in _POWERS and word not in ("平方", "立方"):
        return None, _POWERS[name]
    for prefix in ("平方", "立方"):
        if word.startswith(prefix) and (unit := _word(word[2:])):
            return NO_UNIT.times(unit, _POWERS[prefix]), 1
    found = _word(word)
    return None if found is None else (NO_UNIT.times(found, pending), 1)


def _noun(text: str) -> Unit | None:
    plain = re.sub(r"[⟪⟫]", " ", text).strip()
    plain = re.sub(r"^\((.*)\)$", r"\1", plain)
    if re.fullmatch(r"[\u4e00-\u9fff]{1,6}", plain) and plain[0] in _COUNTERS:
        return Unit({f"noun {_singular(plain)}": 1}, noun=True)
    words = plain.lower().split()
    if not 1 <= len(words) <= _MAX_NOUN_WORDS or not all(re.fullmatch(r"[a-z]{3,20}", word) for word in words):
        return None
    if _NOT_NOUNS.intersection(words):
        return None
    return Unit({f"noun {' '.join(map(_singular, words))}": 1}, noun=True)


def _singular(word: str) -> str:
    if word in ("people", "persons", "人"):
        return "person"
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    for ending in ("ches", "shes", "sses", "xes", "oes"):
        if word.endswith(ending):
            return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def could_be_letters(text: str) -> bool:
    """The unit is written like a variable, or a product of some: it needs a space before it, or to stand as text."""
    return text.strip() in _SINGLE_LETTER | _NOT_ATTACHED


def is_single_letter(text: str) -> bool:
    """The unit is written like one variable."""
    return text.strip() in _SINGLE_LETTER


def is_pound_either_way(first: Unit, second: Unit) -> bool:
    """`pounds`, a word for a mass and for a currency, against £."""
    both = (parse_unit("pound"), parse_unit("£"))
    return (first, second) in (both, both[::-1])
