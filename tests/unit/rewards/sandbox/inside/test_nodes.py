"""LeetCode's linked lists and trees, built and spelt."""

from __future__ import annotations

import types
from typing import Any

import pytest

from rayzero.rewards.code.languages.nodes import undefined_nodes
from rayzero.rewards.sandbox.inside import nodes

MODULE = types.ModuleType("solution")


def chain(head: nodes.ListNode) -> nodes.ListNode:
    return head


def forest(roots: list[nodes.TreeNode], depth: int) -> list[nodes.TreeNode]:
    return roots


def ancestor(root: nodes.TreeNode, p: nodes.TreeNode) -> nodes.TreeNode:
    return p


@pytest.mark.parametrize("values", [[1, 2, 3], [7]])
def test_a_list_is_built_and_spelt(values: list[int]) -> None:
    (head,) = nodes.built(chain, [values], MODULE)
    assert head.val == values[0]
    assert nodes.spelt(head) == values
    assert nodes.result(chain, [values], head) == values


def test_an_empty_list_is_none_and_comes_back_as_one() -> None:
    assert nodes.built(chain, [[]], MODULE) == [None]
    assert nodes.result(chain, [[]], None) == []


@pytest.mark.parametrize("values", [[3, 9, 20, None, None, 15, 7], [1, None, 2, None, 3], [5]])
def test_trees_are_level_by_level(values: list[Any]) -> None:
    made, depth = nodes.built(forest, [[values, []], 4], MODULE)
    assert (nodes.spelt(made[0]), made[1], depth) == (values, None, 4)
    assert nodes.spelt(made) == [values, None]


def test_an_integer_names_a_node() -> None:
    root, p = nodes.built(ancestor, [[3, 5, 1], 5], MODULE)
    assert p is root.left
    assert nodes.result(ancestor, [[3, 5, 1], 5], p) == 5


def test_what_has_no_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MAX_NODES", 100)
    head = nodes.ListNode(1)
    head.next = head
    root = nodes.TreeNode(1)
    root.left = root
    for endless in (head, root):
        with pytest.raises(ValueError, match="without an end"):
            nodes.spelt(endless)


def test_other_arguments_pass_through() -> None:
    def plain(values: list[int], text: str) -> int:
        return 0

    assert nodes.built(plain, [[1], "x"], MODULE) == [[1], "x"]
    assert nodes.built(len, [[1]], MODULE) == [[1]]


def test_definitions_in_comments_are_none() -> None:
    assert undefined_nodes("/* struct ListNode {}; */ ListNode* f(ListNode* a)") == ["ListNode"]
    assert undefined_nodes("struct ListNode { int val; }; ListNode* f(TreeNode* a)") == ["TreeNode"]
    assert undefined_nodes("int f(int a)") == []
