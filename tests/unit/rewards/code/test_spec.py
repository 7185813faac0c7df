import pytest

from rayzero.rewards.code.spec import AssertTest, CallTest, SpecError, StdinTest, parse


def test_each_form_of_test() -> None:
    spec = parse(
        {
            "language": "python",
            "tests": [
                {"stdin": "1", "expected": "2"},
                {"call": "f", "args": [1], "expected": None},
                {"assert": "assert f(1) == 2"},
            ],
            "source": "a column of the data row",
        }
    )
    assert [type(test) for test in spec.tests] == [StdinTest, CallTest, AssertTest]
    assert spec.stops_early


def test_short_checker_and_fraction() -> None:
    spec = parse({"tests": [{"stdin": "", "expected": ""}], "checker": "tokens", "scoring": "fraction"})
    assert spec.checker.kind == "tokens"
    assert not spec.stops_early


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ({"tests": []}, "tests"),
        ({}, "tests"),
        ({"tests": [{"expected": 1}]}, "tests.0"),
        ({"tests": [{"stdin": "", "expected": ""}], "time_limit_s": 0}, "time_limit_s"),
        ({"tests": [{"stdin": "", "expected": ""}], "checker": "fuzzy"}, "checker"),
        ({"tests": [{"stdin": "", "expected": ""}], "scoring": "fraction", "early_exit": True}, "early_exit"),
        ("not a spec", "spec"),
    ],
)
def test_refusals_name_the_key(spec: object, named: str) -> None:
    with pytest.raises(SpecError, match=named):
        parse(spec)
