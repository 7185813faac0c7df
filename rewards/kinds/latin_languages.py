"""Which of the languages in Latin script a sentence is in, by its commonest small words.

A word counts only for the languages that have it, and none that is also English, a name's particle or a function
(`die`, `sin`, `on`, `de Moivre`). A sentence belongs to the language that most of its small words speak for, English
in doubt; one without any goes with the sentence before it, or else with the first that has some.
"""

from __future__ import annotations

import re
from collections import Counter

from rayzero.rewards.math.split import words

_ENGLISH = (
    "the of and to is that it for with this are be have has by from which we let since then thus hence because if "
    "so can must when where what how not but they their there these those would will should could does do was were "
    "an in at as or than each every into only now our us you your get gives given find using need also here first "
    "next all any some two three both therefore"
)
_WORDS = {
    "en": _ENGLISH,
    "fr": (
        "le la les des du un une et est sont nous vous ils elles il elle que qui dans pour avec par sur ce cette ces "
        "cet donc alors mais ou où si ainsi puisque parce comme tout tous toute toutes deux trois ne pas plus nombre "
        "somme aux au leur leurs notre votre être avoir peut doit faut cherchons calculons trouvons obtient soit ici "
        "puis car avons c'est d'abord l'équation qu'il n'est s'il j'ai y'a ensuite entre chaque même sans "
        "je tu vaut réponse égal égale équation résultat"
    ),
    "de": (
        "der das und ist sind wir ihr sie ein eine einen einem einer eines nicht mit von zu den dem für auf aus bei "
        "nach auch wenn dann weil dass daß also aber oder sich wird werden kann muss müssen haben hat wie nun hier "
        "zuerst zwei drei alle summe zahl zahlen gleichung ergibt gilt diese dieser dieses damit daher durch zum zur "
        "im am vom über unter zwischen jede jeder sein ihre noch schon "
        "ich er ergebnis antwort gleich lösung"
    ),
    "es": (
        "el los las un una unos unas y es son que en por para con del al lo como pero más este esta estos estas "
        "entonces donde cuando porque si se su sus nos dos tres todos todas número números suma tenemos podemos "
        "debemos sea ser está están hay muy también así luego cada ecuación primero ahora entre hasta desde "
        "sobre ya o ni calculamos buscamos la de yo resultado respuesta igual solución"
    ),
    "it": (
        "il gli le di che è sono per con della delle dei degli del nel nella un una uno questo questa questi e non si "
        "come quindi allora poiché perché se anche più tutti tutte due tre somma numero numeri "
        "abbiamo possiamo dobbiamo essere ogni ora prima poi tra ma dove quando cioè dal dalla alla al la lo i "
        "io risultato risposta uguale soluzione"
    ),
    "pt": (
        "o os as um uma uns umas é são que em por para com do da dos das no na nos nas como mas mais este esta estes "
        "então onde quando porque se seu sua dois duas três todos todas número números soma temos podemos devemos seja "
        "ser está estão há muito também assim cada equação primeiro agora entre até desde sobre já ou e não de "
        "eu resultado resposta igual solução"
    ),
}
_ALSO_ENGLISH = frozenset(
    words(
        "die on or so an in as at no me a i he son ton fin sin con am war was plus pour main pas par or ou do dos as "
        "come prima due per se ma sans comment ora o e y i non poi tra"
    )
)
"""Evidence only beside a word that no English sentence has."""
_PARTICLES = frozenset(words("la le un el lo de du del al da di si il sur im uno les"))
"""Evidence only beside another word of the same language: `à la carte`, `de Moivre`, `El Niño`."""
_OF_WORD = {
    word: tuple(code for code, text in _WORDS.items() if word in text.split())
    for word in {word for text in _WORDS.values() for word in text.split()}
}
_ACCENTS = {
    "fr": re.compile("[çèêëîïôûùœ]"),
    "de": re.compile("[äöüß]"),
    "es": re.compile("[ñáíóú]"),
    "pt": re.compile("[ãõ]"),
}
_SENTENCE_END = re.compile(r"[.!?;:](?=\s|$)|[。！？；]|\n+")
_ELISION = re.compile(r"^(?:[cdjlmnst]|qu)['’](?=\w)", re.IGNORECASE)
MAX_SENTENCE_WORDS = 40


def sentence_ends(text: str) -> list[int]:
    """Where sentences end: at their marks (Latin ones before white space only) and at line breaks."""
    return [match.end() for match in _SENTENCE_END.finditer(text)]


def languages_of(sentences: list[list[str]]) -> list[str | None]:
    """The language of each sentence, given by its words; None where nothing in the whole text tells."""
    found = [_language(sentence) for sentence in sentences]
    known = next(filter(None, found), None)
    for index, language in enumerate(found):
        known = found[index] = language or known
    return found


def _language(sentence: list[str]) -> str | None:
    """The language that most small words speak for; None without any."""
    hits: Counter[str] = Counter()
    weak: Counter[str] = Counter()
    particles: Counter[str] = Counter()
    for word in sentence:
        lower = word.lower().replace("’", "'")
        if _ELISION.match(lower) and len(lower) > 3:
            hits["fr"] += 1
            lower = lower.partition("'")[2]
        for code in _OF_WORD.get(lower, ()):
            kind = particles if lower in _PARTICLES else weak if lower in _ALSO_ENGLISH and code != "en" else hits
            kind[code] += 1
        if lower == word:  # Poincaré and Möbius are names
            for code, accents in _ACCENTS.items():
                particles[code] += accents.search(word) is not None
    for code in _WORDS:
        if hits[code] or particles[code] > 1:
            hits[code] += weak[code] + particles[code]
    hits += Counter()
    if not hits:
        return None
    best = max(hits.values())
    return next(code for code in _WORDS if hits[code] == best)
