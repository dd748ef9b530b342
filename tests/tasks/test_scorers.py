"""Tricky responses, one line each."""

import pytest

from swarm.errors import TaskError
from swarm.tasks import Example, get_scorer

SKY = {"A": "blue", "B": "a red glow", "C": "no light at all", "D": "light", "I": "indigo"}
BOOL = {"A": "yes", "B": "no", "C": "neutral"}
COUNTS = {"A": "3", "B": "0", "C": "60,000", "D": "60,000"}
NUMBERED = {"1": "4", "2": "1", "3": "9 apples"}


@pytest.mark.parametrize(
    ("choices", "text", "picked"),
    [
        # bare
        (SKY, "B", "B"),
        (SKY, "b", "B"),
        (SKY, " (b) \n", "B"),
        (SKY, "B.", "B"),
        (SKY, "**B**", "B"),
        (SKY, "[B]", "B"),
        (SKY, "`B`", "B"),
        (SKY, "'B'", "B"),
        (SKY, "Option B", "B"),
        (SKY, "A", "A"),
        (SKY, "I", "I"),
        (SKY, "E", None),
        (SKY, "", None),
        # stated
        (SKY, "The answer is (B)", "B"),
        (SKY, "The answer is B because A is too bright.", "B"),
        (SKY, "The answer is A because it is day.", "A"),
        (SKY, "The answer is: **B**", "B"),
        (SKY, "**Answer:** B", "B"),
        (SKY, "**Answer**: (B) a red glow", "B"),
        (SKY, "Answer:\n\nB", "B"),
        (SKY, "ANSWER：B", "B"),
        (SKY, '{"reasoning": "A is wrong", "answer": "B"}', "B"),
        (SKY, "The correct option is B, not A.", "B"),
        (SKY, "The best choice is option (B).", "B"),
        (SKY, "The answer, therefore, is B", "B"),
        (SKY, "The answer to this question is B.", "B"),
        (SKY, "The answer should be b) a red glow", "B"),
        (SKY, r"So $\boxed{B}$", "B"),
        (SKY, r"So $\boxed{\text{(B)}}$.", "B"),
        (SKY, "<answer>B</answer>", "B"),
        (SKY, "#### B", "B"),
        (SKY, "The answer is A. No, wait. The answer is B.", "B"),
        (SKY, "The answer is (A).\nCorrect? Hardly.\nFinal answer: B", "B"),
        (SKY, "The answer is not A. The answer is B.", "B"),
        (SKY, "The answer is in the text. Answer: B", "B"),
        # letters in thinking
        (SKY, "<think>The answer is A</think>B", "B"),
        (SKY, "The answer is A</think>The answer is B", "B"),
        (SKY, "<think>B</think>", None),
        # words that look like letters
        (SKY, "The answer is a red glow.", "B"),
        (SKY, "The answer is A red glow", "B"),
        (SKY, "A red glow", "B"),
        (SKY, "A friend told me so.", None),
        (SKY, "I think it depends.", None),
        (SKY, "I'm not sure.", None),
        (SKY, "A dog and a cat", None),
        (SKY, "Vitamin D-rich food", None),
        (SKY, "Boats", None),
        (SKY, "The answer is I think B", None),
        # the text of a choice
        (SKY, "a red glow", "B"),
        (SKY, "Red glow.", "B"),
        (SKY, "The answer is blue.", "A"),
        (SKY, "The answer is blue, as always.", "A"),
        (SKY, "There was no light at all that night.", "C"),
        (SKY, "Perhaps blue, perhaps indigo.", None),
        (BOOL, "No, that would be rude.", "B"),
        (BOOL, "Yes. There is no doubt.", "A"),
        (BOOL, "no", "B"),
        (BOOL, "Nobody knows", None),
        # letters first, then discussion
        (SKY, "B. a red glow", "B"),
        (SKY, "B) because A and C are wrong", "B"),
        (SKY, "B, since A is wrong", "B"),
        (SKY, "B - as the sun sets", "B"),
        (SKY, "B\n\nThe sun sets, see (A).", "B"),
        (SKY, "**B. a red glow**\n\nExplanation: ...", "B"),
        # discussion first
        (SKY, "A. wrong\nB. right\nSo B is correct.", "B"),
        (SKY, "A) is wrong.\nC) is wrong.\nB is the best answer here.", "B"),
        (SKY, "I would choose B here", "B"),
        (SKY, "We can rule out (A), which leaves (B)", "B"),
        (SKY, "The sun sets.\n\nB", "B"),
        (SKY, "D. neither A nor B is correct", "D"),
        # several at once are none
        (SKY, "The answer is A or B", None),
        (SKY, "The answer is (A) and (B).", None),
        (SKY, "A, B", None),
        (SKY, "The answer is B and a little luck.", "B"),
        # numbers as texts, and as letters
        (COUNTS, "The answer is 0.", "B"),
        (COUNTS, "The answer is 3 typefaces", "A"),
        (COUNTS, "60,000", None),
        (COUNTS, "D. 60,000", "D"),
        (NUMBERED, "1", "1"),
        (NUMBERED, "The answer is (2).", "2"),
        (NUMBERED, "4", "1"),
        (NUMBERED, "The answer is 9 apples.", "3"),
    ],
)
def test_choice(choices, text, picked):
    scorer = get_scorer("choice")
    example = Example("q", "B" if "B" in choices else "2", "1", choices=choices)
    assert scorer.extract(example, text) == picked
    assert scorer(example, text) == float(picked == example.answer)


def test_choice_accepts_gold_texts_and_several_golds():
    scorer = get_scorer("choice")
    example = Example("q", ("a red glow", "C"), "1", choices=SKY)
    scorer.check(example)
    assert [scorer(example, text) for text in ("A", "B", "C")] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("gold", "text", "score"),
    [
        ("18", "18", 1),
        ("18", "18.0", 1),
        ("18", "$18.00", 1),
        ("18", "18 dollars", 1),
        ("18", "She has 20 - 2 = 18 eggs.", 1),
        ("18", "The answer is 18. That is 2 more than 16.", 1),
        ("18", "The answer is 18, since 20 - 2 = 18 and 1 = 1.", 1),
        ("18", "The answer is 18, which is checked by 9 * 2 mod 5 = 3.", 1),
        ("18", "The answer is 20 - 2 = 18", 1),
        ("18", "The final answer is x = 18", 1),
        ("18", "48/2=<<48/2=24>>24\n#### 18", 1),
        ("18", '{"answer": "18"}', 1),
        ("18", r"$\boxed{18}$ is between 17 and 19", 1),
        ("18", r"\boxed{18\text{ cm}^2}", 1),
        ("18", "Answer: 17\nAnswer: 18", 1),
        ("18", "The answer is unclear to me. 18", 1),
        ("18", "<think>17</think>18", 1),
        ("18", "18</think>17", 0),
        ("18", "18 or 19", 0),
        ("18", "-18", 0),
        ("18", "180", 0),
        ("18", "18.4", 0),
        ("18", "1 8", 0),
        ("18", "eighteen", 0),
        ("18", "m18", 0),
        ("18", "18/0", 0),
        ("18", r"18\sqrt{3}", 0),
        ("18", r"18\pi", 0),
        ("18", "16-18", 1),
        ("-3", "-3", 1),
        ("-3", "−3", 1),
        ("-3", "–3 degrees", 1),
        ("-3", "x=-3", 1),
        ("-3", "5-3", 0),
        ("-3", "-$3", 1),
        ("-3", "$-3", 1),
        ("36,000", "36000", 1),
        ("36000", "It cost $36,000.", 1),
        ("36000", r"36{,}000", 1),
        ("36000", r"36\,000", 1),
        ("36000", "36\u202f000", 1),
        ("1234567.5", "1,234,567.50", 1),
        ("3", "1,2,3", 1),
        ("080", "80", 1),
        ("80", "080", 1),
        ("12345678", "12345679", 0),
        ("0.5", "1/2", 1),
        ("1/2", ".5", 1),
        ("1/2", "0.5", 1),
        ("1/2", "2/4", 1),
        ("1/2", "½", 1),
        ("3/2", "1½ cups", 1),
        ("1.5", "1 1/2", 1),
        ("1.25", "step 2 5/4", 1),
        (r"\frac{3}{4}", "3/4", 1),
        ("3/4", r"$\dfrac{3}{4}$", 1),
        ("-3/4", r"$-\frac{3}{4}$", 1),
        ("-3/4", r"$\frac{-3}{4}$", 1),
        ("1.75", r"1\frac{3}{4}", 1),
        ("1/3", "0.33333333", 1),
        ("1/3", "0.33", 0),
        ("45%", "45%", 1),
        ("45%", "45", 1),
        ("45%", "0.45", 1),
        ("45", "45 percent", 1),
        ("0.45", r"45\%", 1),
        ("0.45", "45", 0),
        ("0.45", "0.45%", 1),
        ("1024", "2^10", 1),
        ("1024", "2^{10}", 1),
        ("1000000", "10⁶", 1),
        ("1500000", r"1.5 \times 10^{6}", 1),
        ("1500000", "1.5e6", 1),
        ("1500000", "1.5 × 10⁶", 1),
        ("0.0015", "1.5 x 10^-3", 1),
        ("18", "１８", 1),
        ("0", "0.0", 1),
        ("0", "", 0),
    ],
)
def test_number(gold, text, score):
    scorer = get_scorer("number")
    example = Example("q", gold, "1")
    scorer.check(example)
    assert scorer(example, text) == score


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1,234.50", "1234.5"),
        ("so it is 1234.5.", "1234.5"),
        ("18.0", "18"),
        ("45 %", "45%"),
        ("1/3", "0.333333333333"),
        ("none", None),
    ],
)
def test_equal_numbers_are_extracted_as_equal_texts(text, number):
    assert get_scorer("number").extract(Example("q", "1", "1"), text) == number


def test_tolerance_is_relative_to_the_gold_number_and_not_for_whole_numbers():
    scorer = get_scorer({"name": "number", "tolerance": 0.01})
    assert scorer(Example("q", "3.14159", "1"), "3.14") == 1
    assert scorer(Example("q", "3.14159", "1"), "3.2") == 0
    assert scorer(Example("q", "1000", "1"), "1001") == 0


@pytest.mark.parametrize(
    "gold",
    [
        "Paris",
        "080 or 081 (both were accepted)",
        "x^2+1",
        r"2\sqrt{3}",
        r"\frac{\pi}{2}",
        "3:45",
        "1/0",
    ],
)
def test_number_refuses_golds_that_are_not_one_number(gold):
    with pytest.raises(TaskError, match=r"not one number.*use `exact`, or give several"):
        get_scorer("number").check(Example("q", gold, "1"))


@pytest.mark.parametrize(
    ("gold", "text", "score"),
    [
        ("Paris", " paris. ", 1),
        ("Paris", "The answer is Paris.", 1),
        ("Paris", "The answer is Paris. It is on the Seine.", 1),
        ("Paris", "**Answer:** Paris", 1),
        ("Paris", "The answer is Rome. The answer is Paris.", 1),
        ("Paris", "The answer is Paris. The answer is Rome.", 0),
        ("Paris", "Paris, France", 0),
        ("Paris", "London</think>Paris", 1),
        ("Paris", "Paris</think>London", 0),
        ("St. Petersburg", "The answer is St. Petersburg.", 1),
        ("the Beatles", "Beatles", 1),
        ("Theatre", "atre", 0),
        ("well-known", "well\u2010known", 1),
        ("don't", "don\u2019t", 1),
        ("Yes", "yes!", 1),
        ("Yes", "No", 0),
        ("-3", "3", 0),
        ("-3", "\u22123", 1),
        ("3.5", "35", 0),
        ("3.5", "3.5.", 1),
        ("1/2", "12", 0),
        ("36,000", "36000", 1),
        ("A", "a.", 1),
        ("A", "B", 0),
        ("A", "", 0),
        ("???", "!!!", 0),
        ("東京", "東京。", 1),
        ("Brunei, China", "Brunei China", 1),
    ],
)
def test_exact(gold, text, score):
    assert get_scorer("exact")(Example("q", gold, "1"), text) == score


@pytest.mark.parametrize(
    ("gold", "text", "score"),
    [
        ("a loss of hair", "the loss of hair", 1),
        ("loss of hair", "hair", 0.5),
        ("loss", "loss loss loss", 0.5),
        ("loss", "gain", 0),
        ("loss", "", 0),
        (("gain", "loss of hair"), "loss of", 0.8),
    ],
)
def test_f1(gold, text, score):
    assert get_scorer("f1")(Example("q", gold, "1"), text) == pytest.approx(score)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nunber", r"scorer `nunber` unknown \(did you mean `number`\?\); there are `exact`, "),
        ({"tolerance": 0.1}, "needs its name: add `name"),
        ({"name": 3}, "needs its name"),
        (
            {"name": "number", "tolerence": 1},
            r"no option `tolerence` \(did you mean `tolerance`\?\)",
        ),
        ({"name": "exact", "tolerance": 1}, "`exact` has no option `tolerance`"),
        ({"name": "math:sin", "tolerance": 1}, "`math:sin` has no option `tolerance`"),
        ({"name": "number", "tolerance": 2}, "`tolerance`: `2` must be at least 0 and below 1"),
        ({"name": "number", "tolerance": "x"}, "`tolerance`: `'x'` must be"),
        ("math:sinn", r"`math` has no `sinn` \(did you mean `sin"),
        ("math:pi", "`pi` is a float, not a function"),
        ("no_such_module_here:f", "can't be imported: ModuleNotFoundError"),
        ("scorers.py:f", "`scorers.py`: no such file"),
        (":f", "must be `module:function` or `file.py:function`"),
    ],
)
def test_scorers_that_are_not_there_say_what_is(spec, message):
    with pytest.raises(TaskError, match=message):
        get_scorer(spec)


def test_a_function_is_found_beside_the_settings_file(tmp_path):
    (tmp_path / "mine.py").write_text("def half(example, text):\n    return 0.5\n")
    (tmp_path / "broken.py").write_text("import this_is_not_there\n")
    assert get_scorer("mine.py:half", tmp_path)(Example("q", "a", "1"), "") == 0.5
    with pytest.raises(TaskError, match=r"`broken.py` can't be imported: ModuleNotFoundError"):
        get_scorer("broken.py:half", tmp_path)


def test_an_edited_function_is_another_scorer(tmp_path):
    identities = set()
    for body in ("0.5", "0.6", "0.5"):
        path = tmp_path / f"mine{len(identities)}" / "mine.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"def half(example, text):\n    return {body}\n")
        identities.add(get_scorer("mine.py:half", path.parent).identity)
    assert len(identities) == 2
