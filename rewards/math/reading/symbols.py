r"""Tables of the notation: which Unicode characters and LaTeX macros stand for what.

Everything is rewritten to one small language, in which a structure symbol is one character:
`⟪words⟫` is a stretch of text, `⦃ ⦄` are set braces, `⟨ ⟩` vector brackets, `{ }` plain TeX groups.
"""

from __future__ import annotations

from rayzero.rewards.math.split import words

DECIMAL_COMMA = "‚"
"""`{,}` in a number where it separates no thousands."""

GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩ",
        words(
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon "
            "phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
        ),
        strict=True,
    )
)

UNICODE: dict[str, str] = {
    **{letter: f"\\{name} " for letter, name in GREEK.items()},
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": "*", "⋅": "*", "·": "*", "∙": "*", "∗": "*",
    "÷": "/", "∕": "/", "⁄": "/", "∶": ":", "≤": "≤", "≦": "≤", "⩽": "≤", "≧": "≥", "⩾": "≥", "≒": "≈", "∼": "≈",
    "≅": "≈",
    "∘": "°", "º": "°", "˚": "°", "℃": "°⟪C⟫", "℉": "°⟪F⟫", "′": "'", "’": "'", "‘": "'", "″": "''",
    "“": '"', "”": '"', "„": '"',
    "〈": "⟨", "〉": "⟩", "∣": "|", "｜": "|", "…": "…", "⋯": "…", "∖": "∖", "∅": "∅", "⌀": "∅", "Ø": "∅", "ø": "∅",
    "≢": "≢", "∧": "⟪and⟫", "∨": "⟪or⟫", "√": "\\sqrt ", "∛": "\\sqrt[3]", "¥": "¥", "￥": "¥", "￡": "£", "￠": "¢",
    "《": "", "》": "", "「": "", "」": "", "『": "", "』": "", "【": "", "】": "", "。": ". ", "．": ".", "ℯ": "e",
    "ⅈ": "i",
    "𝑖": "i", "\u00a0": " ", "\u3000": " ", "\u2009": " ", "\u202f": " ", "\u2002": " ", "\u2003": " ", "\u2005": " ",
    "\u200b": "", "\u200c": "", "\u200d": "", "\ufeff": "", "\u2060": "", "\u2061": "", "\u2062": "",
}  # fmt: skip
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ", "0123456789+-ni", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n", strict=True))
VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5", "⅗": "3/5", "⅘": "4/5",
    "⅙": "1/6", "⅚": "5/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8", "⅐": "1/7", "⅑": "1/9", "⅒": "1/10",
}  # fmt: skip

MACROS: dict[str, str] = {
    **dict.fromkeys(("times", "cdot", "ast", "bullet", "centerdot"), "*"),
    **dict.fromkeys(("le", "leq", "leqslant", "leqq"), "≤"),
    **dict.fromkeys(("ge", "geq", "geqslant", "geqq"), "≥"),
    **dict.fromkeys(("ne", "neq"), "≠"),
    **dict.fromkeys(("approx", "simeq", "thickapprox", "doteq", "fallingdotseq", "sim", "cong"), "≈"),
    **dict.fromkeys(("emptyset", "varnothing"), "∅"),
    **dict.fromkeys(("setminus", "backslash", "smallsetminus"), "∖"),
    **dict.fromkeys(("ldots", "dots", "cdots", "dotsc", "dotsb", "dotsm"), "…"),
    **dict.fromkeys(("langle", "lang"), "⟨"),
    **dict.fromkeys(("rangle", "rang"), "⟩"),
    **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    **dict.fromkeys(("lbrace", "{"), "⦃"),
    **dict.fromkeys(("rbrace", "}"), "⦄"),
    **dict.fromkeys(("degree", "circ", "textdegree"), "°"),
    **dict.fromkeys(("land", "wedge"), "⟪and⟫"),
    **dict.fromkeys(("lor", "vee"), "⟪or⟫"),
    **dict.fromkeys(("yen", "textyen"), "¥"),
    **dict.fromkeys(("euro", "texteuro"), "€"),
    **dict.fromkeys(("pounds", "textsterling"), "£"),
    **dict.fromkeys(("cent", "textcent"), "¢"),
    **dict.fromkeys(("N", "naturals"), "ℕ"),
    **dict.fromkeys(("R", "reals", "Reals"), "ℝ"),
    **dict.fromkeys(("lbrack",), "["),
    **dict.fromkeys(("rbrack",), "]"),
    **dict.fromkeys(("lparen",), "("),
    **dict.fromkeys(("rparen",), ")"),
    "div": "/", "pm": "±", "mp": "∓", "lt": "<", "gt": ">", "equiv": "≡", "cup": "∪", "cap": "∩", "in": "∈",
    "notin": "∉",
    "infty": "∞", "colon": ":", "%": "%", "$": "$", "#": "#", "&": " ⟪and⟫ ", "_": "_", "prime": "'", "Z": "ℤ",
    "Q": "ℚ",
    "bigcup": "∪", "bigcap": "∩", "to": "→", "rightarrow": "→", "Rightarrow": "⇒", "implies": "⇒", "iff": "⇔",
    "Leftrightarrow": "⇔", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "imath": "i", "jmath": "j",
    "textdollar": "$", "dollar": "$", "permil": "‰", "arccos": "\\acos ", "arcsin": "\\asin ", "arctan": "\\atan ",
    "varphi": "\\phi ", "vartheta": "\\theta ", "varepsilon": "\\epsilon ", "lg": "\\log ", "tg": "\\tan ",
    "ctg": "\\cot ",
    "neg": "⟪not⟫", "lnot": "⟪not⟫",
}  # fmt: skip
"""Macros without arguments -> their character."""

SPACING = frozenset(
    {" ", "\n", "\t"}.union(
        words(
            ", ; : > ~ / ! "
            "quad qquad enspace enskip thinspace medspace thickspace displaystyle textstyle scriptstyle limits "
            "nolimits hfill newline left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl "
            "Biggr nonumber centering small large Large normalsize strut allowbreak noindent "
            "bf it sf tt bfseries itshape rmfamily sffamily ttfamily scshape "
            "checkmark square blacksquare qed"
        )
    )
)
"""Macros that only space or size."""

GLUE = frozenset(["!", "left", "right", "middle"])
"""Those of SPACING that leave no space at all."""

TEXT_MACROS = frozenset(
    words(
        "text textbf textit textrm textsf texttt textnormal textup emph mbox hbox mathrm rm mathsf mathtt "
        "operatorname textsc mathop textmd"
    )
)
PLAIN_WRAPPERS = frozenset(
    words(
        "mathbf boldsymbol mathit bm boxed fbox framebox ensuremath mathcal mathnormal underline bold pmb "
        "mathbin mathrel cancel hbox smash mathstrut unboldmath mathord"
    )
)
"""Macros whose argument counts and which themselves do not."""

DROPPED_WITH_ARGUMENT = frozenset(words("hspace vspace phantom hphantom vphantom color tag label kern mkern raisebox"))

SYNONYM_COMMANDS = {
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
    "sfrac": "frac",
    "dbinom": "binom",
    "tbinom": "binom",
}

FUNCTIONS = frozenset(
    words(
        "sin cos tan cot sec csc asin acos atan sinh cosh tanh ln log exp gcd lcm max min arg det deg Re Im "
        "sqrt abs floor ceil"
    )
)
"""Function names that may also be written without a backslash."""
