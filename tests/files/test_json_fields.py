import math

import numpy as np
import pytest

from keras_ext.files.json_fields import KINDS, check_field, check_fields

# For each kind: what is of it, and what is not.
VALUES = {
    "a string": ([""], [1, None]),
    "true or false": ([True], [1, None]),
    "true, false or null": ([False, None], [0]),
    "an integer": ([-1, np.int64(3)], [True, 1.0, "1"]),
    "a positive integer": ([1], [0, True, 1.5]),
    "an integer of at least 0": ([0], [-1, False]),
    "an integer from 1 to 1000": ([1, 1000], [0, 1001, 5.0]),
    "a number": ([1, -1.5], [True, "1"]),
    "a positive number": ([1e-9, math.inf], [0, math.nan, "1"]),
    "a positive, finite number": ([1e30], [0.0, math.inf, math.nan]),
    "a number in [0, 1)": ([0, 0.5], [1, -0.1, math.nan, False]),
    "a number or an object of numbers": ([0.5, {"a": 1}], ["a", {"a": "1"}, {"a": True}]),
    "a list of lists": ([[], [[1]]], [[1], {}]),
    "a list of strings or of lists": ([["a", []]], [[1], "a"]),
    "a list of strings": ([["a"]], [["a", 1], "a"]),
    "a string or a list of strings": (["a", ["a"]], [[1], None]),
    "an object": ([{}], [[], None]),
    "an object of strings": ([{"a": "b"}], [{"a": 1}, []]),
    "an object of integers": ([{"a": 1}], [{"a": True}, {"a": 1.0}]),
}


def test_each_kind_is_in_the_table_of_this_test():
    assert VALUES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_holds_what_it_should_or_is_named(kind):
    good, bad = VALUES[kind]
    for value in good:
        check_field("size", value, kind)
        check_field("size", value, f"{kind} or null")
    check_field("size", None, f"{kind} or null")
    for value in bad:
        with pytest.raises(ValueError, match='^"size" should be .*Received: size='):
            check_field("size", value, kind)
        with pytest.raises(ValueError, match='^In a.json, "size" should .*path=.*a.json'):
            check_fields({"size": value}, "folder/a.json", {}, {"size": kind})


def test_fields_that_lack_and_others_are_named():
    check_fields({"more": 1}, "a.json", {}, {"size": "an integer"})
    with pytest.raises(ValueError, match='a.json lacks "part.size", which should be an integer'):
        check_fields({}, "a.json", {"size": "an integer"}, within="part")
    with pytest.raises(ValueError, match="not known here. Received: \\['more'\\]"):
        check_fields({"more": 1}, "a.json", {}, others=False)
    with pytest.raises(ValueError, match="what it holds should be an object. Received: 3"):
        check_fields(3, "a.json", {})
