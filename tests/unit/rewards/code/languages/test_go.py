"""Go's imports for programs that come without, as LeetCode's do."""

from __future__ import annotations

from rayzero.rewards.code.languages.go import with_imports


def test_packages_that_are_used_are_imported() -> None:
    text = with_imports("package main\nfunc f(a []int) int { sort.Ints(a); return int(math.Sqrt(4)) }\n")
    assert text.splitlines()[:2] == ["package main", 'import "math"; import "sort"; ']


def test_a_nested_package_goes_by_its_last_name() -> None:
    assert 'import "container/heap"' in with_imports("package main\nfunc f(h *H) { heap.Push(h, 1) }\n")


def test_imports_of_its_own_are_left_alone() -> None:
    text = 'package main\nimport "sort"\nfunc f(a []int) { sort.Ints(a); strings.ToUpper("") }\n'
    assert with_imports(text) == text
    plain = "package main\nfunc f(x int) int { return x }\n"
    assert with_imports(plain) == plain
