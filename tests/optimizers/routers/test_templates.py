"""What questions share is set aside, so that their own text is read."""

from __future__ import annotations

import numpy as np

from swarm.analysis.routing import Routed
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.templates import Templates

EXAMPLES = "".join(f"What is the colour of thing number {i}?\nIt is blue.\n\n" for i in range(60))
END = "\nAnswer in one word, and say nothing else whatever you are asked.\nAnswer:"
OWN = [f"Who wrote book {i} of the {name} series?" for i in range(9) for name in ("sea", "sky")]
ASKED = [EXAMPLES + own + END for own in OWN]


def test_shared_beginnings_and_ends_are_set_aside():
    templates = Templates.of([*ASKED, "A question of its own."])
    assert templates.before == (EXAMPLES + "Who wrote book ",)
    assert [each[1:] for each in templates.after] == ["series?" + END]
    own = templates.own([*ASKED, "A question of its own."])
    assert own[:2] == ["0 of the sea", "0 of the sky"]
    assert own[-1] == "A question of its own."
    assert templates.which([ASKED[0], "A new one"]).tolist() == [[1, 1], [0, 0]]


def test_one_template_within_another():
    inner = EXAMPLES + "All of these are about the history of the world's oceans.\n"
    asked = [f"{inner}{letter * 9}?" for letter in "abcdefghijkl"]
    asked += [f"{EXAMPLES}{letter * 9}?" for letter in "mnopqrstuvwx"]
    templates = Templates.of(asked)
    assert templates.before == (inner, EXAMPLES)
    assert templates.own(asked)[0] == "aaaaaaaaa?"
    assert templates.own(asked)[-1] == "xxxxxxxxx?"


def test_what_few_questions_share_or_is_all_there_is_stays():
    assert Templates.of(ASKED[:5]) == Templates((), ())
    assert Templates.of([EXAMPLES] * 50) == Templates((), ())
    assert Templates((EXAMPLES,), ()).own([EXAMPLES]) == [EXAMPLES]
    assert Templates((EXAMPLES,), (EXAMPLES,)).own([EXAMPLES]) == [EXAMPLES]


def test_carrot_reads_what_stands_behind_examples(make, fitted_on, judged_by):
    def behind(outcomes):
        questions = [EXAMPLES + question.strip() for question in outcomes.questions]
        rows = np.unique(questions, return_index=True)[1]
        return Outcomes(
            tuple(questions[i] for i in rows),
            outcomes.experts,
            outcomes.scores[rows],
            outcomes.costs[rows],
        )

    # The encoder reads 256 tokens: as they are, all questions are one to it.
    fitted, judged = behind(fitted_on), behind(judged_by)
    chosen = make("carrot").fit(fitted).route(judged.questions)
    assert Routed.of(chosen, judged).accuracy > judged.means.max() + 0.1
