"""Overloads of the function that a test calls: found in the source, private ones told apart."""

from __future__ import annotations

from rayzero.rewards.code.languages.cpp import _calling
from rayzero.rewards.code.languages.cpp_overloads import Parameter, overloads_of

TWO = """
class Helper { public: int add(string s) { return 0; } };
class Solution {
    int add(vector<pair<int, int>>& items, int from) { return add(1, 2); }
public:
    // int add(char c) { commented out }
    int add(int a, const int b = 3) const { if (add(items, 0)) { return 1; } return 2; }
    int add(long a, int b);
};
int add(double x) { return 0; }
"""


def test_only_definitions_in_the_class_count() -> None:
    first, second = overloads_of(TWO, "add", in_class="Solution")
    assert first.parameters == (
        Parameter("vector<pair<int, int>>& items", "items"),
        Parameter("int from", "from"),
    )
    assert not first.public
    assert second.parameters == (Parameter("int a", "a"), Parameter("const int b", "b"))
    assert second.public


def test_only_definitions_outside_of_braces_count() -> None:
    (found,) = overloads_of(TWO, "add")
    assert found.parameters == (Parameter("double x", "x"),)
    assert found.public
    assert overloads_of(TWO, "sub") == overloads_of("class Solution {", "add", in_class="Solution") == []


def test_a_driver_calls_the_public_overloads_and_names_a_single_function() -> None:
    driver = _calling(TWO, "add")
    assert "serve_overloads([](int a, const int b) -> decltype(auto)" in driver
    assert "items" not in driver.partition("int main()")[2]
    assert "serve(&::count)" in _calling("int count(int a) { return a; }", "count")
