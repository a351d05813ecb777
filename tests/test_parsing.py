"""The answer format: what is written is read back, and what is not an answer is refused with its reason."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mtdrive.planner.answer import MAX_DISTANCE, AnswerError, format_answer, format_number, parse_answer

COORDINATES = st.floats(-MAX_DISTANCE, MAX_DISTANCE, width=64)
HEADINGS = st.floats(-np.pi, np.pi, width=64)
POSES = st.builds(
    lambda xy, heading: np.column_stack([xy, heading]),
    arrays(np.float64, (8, 2), elements=COORDINATES),
    arrays(np.float64, (8,), elements=HEADINGS),
)
GOOD = format_answer(np.column_stack([np.arange(1, 9), np.zeros(8), np.zeros(8)]))


@given(POSES, st.integers(1, 3))
@example(np.zeros((8, 3)) - 0.004, 2)
def test_an_answer_is_read_back_to_the_centimetre(poses, integer_digits):
    parsed = parse_answer(format_answer(poses, integer_digits))
    assert parsed.error is None
    np.testing.assert_allclose(parsed.poses, poses, atol=0.005 + 1e-9)


def test_numbers_have_a_sign_and_a_fixed_width():
    assert [format_number(value, 2) for value in (0.0, -0.001, 2.344, -12.3, 123.456)] == [
        "+00.00",
        "+00.00",
        "+02.34",
        "-12.30",
        "+123.46",
    ]


def test_widths_of_released_checkpoints_are_accepted():
    body = ", ".join(["(+1.2, -0.03, 0.001)", "(12.50, +0, -0.10)"] * 4)
    parsed = parse_answer(f"Here is the planning trajectory [PT, {body}].\n")
    np.testing.assert_allclose(parsed.poses[:2], [[1.2, -0.03, 0.001], [12.5, 0.0, -0.1]])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", AnswerError.MISSING_PREFIX),
        ("Sure! " + GOOD, AnswerError.MISSING_PREFIX),
        (GOOD + " " + GOOD, AnswerError.REPEATED_ANSWER),
        (GOOD[:-30], AnswerError.NOT_CLOSED),
        (GOOD + " Drive safely.", AnswerError.TEXT_AFTER),
        (GOOD.replace("(", "", 1), AnswerError.MALFORMED_POSE),
        (GOOD.replace("+1.00, ", "", 1), AnswerError.MALFORMED_POSE),
        (GOOD.replace("+1.00", "one", 1), AnswerError.NOT_A_NUMBER),
        (GOOD.replace("+1.00", "nan", 1), AnswerError.NOT_A_NUMBER),
        (GOOD.replace("+1.00", "1e1", 1), AnswerError.NOT_A_NUMBER),
        (GOOD.replace("+1.00", "١.00", 1), AnswerError.NOT_A_NUMBER),
        (GOOD.replace("(+1.00, +0.00, +0.00), ", "", 1), AnswerError.WRONG_COUNT),
        (GOOD.replace("+1.00", "+200.01", 1), AnswerError.OUT_OF_RANGE),
        (GOOD.replace("+0.00)", "+3.15)", 1), AnswerError.OUT_OF_RANGE),
    ],
)
def test_refusals_name_their_reason(text, error):
    parsed = parse_answer(text)
    assert parsed.poses is None
    assert parsed.error is error


@given(st.text(alphabet="+-.0123456789(), []PTHere is the planning trajectory", max_size=200))
def test_the_parser_never_fails_otherwise(text):
    for candidate in (text, GOOD[:40] + text, GOOD + text):
        parsed = parse_answer(candidate)
        assert (parsed.poses is None) != (parsed.error is None)


@pytest.mark.parametrize("poses", [np.zeros((7, 3)), np.full((8, 3), np.nan), np.full((8, 3), 201.0)])
def test_what_would_be_refused_is_not_written(poses):
    with pytest.raises(ValueError):
        format_answer(poses)
