"""What an answer is beside what it was read as: a set for certain, an assignment, a matrix, a vector, text."""

from __future__ import annotations

from rayzero.rewards.math.reading.labels import is_names_of_roots, is_plain_symbol, label_names, normal_label
from rayzero.rewards.math.values.answer import Answer, Inequality, Items, Junction, Matrix, Named, Words, flattened
from rayzero.rewards.math.values.exact import NotRationalError, rational_value
from rayzero.rewards.math.values.tree import Node


def as_text(answer: Answer) -> str:
    """Words as they are; the empty set by its symbol; nothing for mathematics."""
    if isinstance(answer, Items) and answer.is_set and not answer.items:
        return "∅"
    return answer.text if isinstance(answer, Words) else ""


def only_element(answer: Answer) -> Answer | None:
    """What a set of one element holds, unless that is the empty set: {∅} is not ∅."""
    if not isinstance(answer, Items) or not answer.is_set or len(answer.items) != 1:
        return None
    return None if as_text(answer.items[0]) == "∅" else answer.items[0]


def is_proper_fraction(node: Node) -> bool:
    """0 < value < 1: a gold answer that is a share, not a number of percent."""
    try:
        return 0 < rational_value(node) < 1
    except NotRationalError:
        return False


def is_surely_a_set(answer: Answer) -> bool:
    """ℝ, a half-open interval, or `x = 1 or x > 2`."""
    if not isinstance(answer, Items):
        return answer == Words("ℝ")
    joined = answer.joiner == "or" and any(isinstance(item, Inequality | Junction) for item in answer.items)
    return joined or answer.brackets in ("(]", "[)")


def brackets_agree(answer: Items, gold: Items) -> bool:
    """Written alike, as far as brackets tell a vector from an interval: beyond two elements all are vectors."""
    vectors = ("()", "⟨⟩")
    if answer.brackets == gold.brackets or (answer.brackets in vectors and gold.brackets in vectors):
        return True
    ordered = ("()", "⟨⟩", "[]")
    return len(gold.items) > 2 and answer.brackets in ordered and gold.brackets in ordered


def assigned(answer: Answer) -> dict[str, Answer] | Items | None:
    """Names to values, in the order of the text; a list of values where the names differ at most in the subscript."""
    if isinstance(answer, Named):
        names = label_names(answer.label)
        if names and isinstance(answer.value, Items) and len(names) == len(answer.value.items):
            return dict(zip(map(normal_label, names), answer.value.items, strict=True))
        return answer.value if isinstance(answer.value, Items) else None
    if not isinstance(answer, Items):
        return None
    named = [item for item in answer.items if isinstance(item, Named)]
    if len(named) != len(answer.items):
        return answer
    labels = [normal_label(item.label) for item in named]
    if len(set(labels)) == 1 or is_names_of_roots(labels):
        return flattened(Items("", tuple(item.value for item in named)))
    return dict(zip(labels, (item.value for item in named), strict=True)) if len(set(labels)) == len(labels) else None


def list_label(answer: Answer) -> str | None:
    """The one symbol that names every value of a list: `x` of `x = 1, 2`, `x = 1 or x = 2` and `x_1 = 1, x_2 = 2`."""
    if isinstance(answer, Named):
        labels = [] if label_names(answer.label) else [answer.label]
    else:
        items = answer.items if isinstance(answer, Items) else ()
        labels = [item.label for item in items if isinstance(item, Named)]
        if len(labels) != len(items):
            return None
    normal = [normal_label(label) for label in labels]
    if not all(map(is_plain_symbol, labels)) or not normal:
        return None
    if is_names_of_roots(normal):
        return normal[0].partition("_")[0]
    return normal[0] if len(set(normal)) == 1 else None


def as_matrix(answer: Answer) -> Matrix | None:
    """A matrix, a list of lists, or a vector as a column."""
    if isinstance(answer, Matrix):
        return answer
    if not isinstance(answer, Items) or answer.brackets not in ("[]", "()", "⟨⟩"):
        return None
    if all(isinstance(item, Items) and item.brackets == "[]" for item in answer.items) and answer.brackets == "[]":
        return Matrix(tuple(item.items for item in answer.items if isinstance(item, Items)))
    return Matrix(tuple((item,) for item in answer.items)) if answer.brackets in ("()", "⟨⟩") else None


def is_vector(answer: Answer) -> bool:
    """A tuple or ⟨…⟩."""
    return isinstance(answer, Items) and answer.brackets in ("()", "⟨⟩")
