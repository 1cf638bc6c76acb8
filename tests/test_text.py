import pytest

from pyro_latents.text import aligned, did_you_mean, padded

NAMES = {"encoder": 1, "decoder": 2, "prior": 3}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("pror", "did you mean prior?"),
        ("ecoder", "did you mean encoder or decoder?"),
        ("zz", "there are encoder, decoder, prior."),
    ],
)
def test_a_word_that_is_not_known_gets_the_near_ones_or_all(word, said):
    assert did_you_mean(word, NAMES) == said


def test_what_is_said_otherwise_replaces_the_list_and_not_the_near_names():
    assert did_you_mean("zz", NAMES, "`list` shows all.") == "`list` shows all."
    assert did_you_mean("pror", NAMES, "`list` shows all.") == "did you mean prior?"


def test_columns_have_one_width_and_lines_no_trailing_space():
    assert aligned([("a", "bbb"), ("cc", "d")]) == "a   bbb\ncc  d"


def test_all_but_the_first_column_can_stand_at_the_right():
    assert aligned([("a", "1.25"), ("bb", "3")], right=True) == "a   1.25\nbb     3"


def test_rows_may_be_made_as_they_are_read():
    assert padded((name, "") for name in NAMES)[2] == ["prior  ", ""]


def test_no_rows_are_no_lines():
    assert aligned([]) == ""


def test_rows_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        aligned([("a", "b"), ("c",)])
