"""Every router on recorded real models, beside best single, random, oracle and what was published.

    python benchmarks/routers.py --train ../shared/pools --out benchmarks/results/routers.json
    python benchmarks/routers.py --train DIR --test DIR --json

Folders are in the format of `../shared/pools`: <folder>/<benchmark>.<split>.jsonl.gz. Files are
found by folder and benchmark, whatever the split is called. With --test, routers are fitted on
--train and judged by --test; without, --train is parted in two, as often as there are seeds, and
unseen benchmarks are those left out of training in turn. A question that is in the test is never
trained on. What is not there is left out of the result.

- routerdc: seven 7B models. ID is the mean over benchmarks that are trained on, OOD over those that
  are not (splits called extra… are neither, with --test). All routers read the text alone.
- llmrouter: the same for nine models on 14 tasks.
- routerbench0: eleven models with true costs, tasks pooled, over a router's own points. AIQ is the
  area under their hull; `acc_at_2_75` the score of the dearest point at no more than $2.75 per
  1 000 questions; `acc_chosen` that of the trade-off that is chosen without a look at any outcome.
- routellm: GPT-4 beside Mixtral; APGR.
- mmlu_pro: recruiting up to five of sixteen open models a question. Profiles are `symmoe_val`;
  rows that do not say so have learned from all other questions, too. `score_balanced` is the mean
  over domains.
- zeroeval: votes, and routers that see no label (Smoothie).
- mot_cascade: a cascade on DATE; its threshold is chosen on training rows.

`best_router` is the project's default, `blend`, not the row that happens to be highest here
(`highest_here`). Its design and settings were chosen by leaving benchmarks out in turn, of the
routerdc and llmrouter pools, by nothing else. Yet who first wrote it knew from memory which
benchmarks the published OOD figure is of, so take that figure of it with a grain of salt.

**Guessing the task.** `over_task_guessed_id` and `…_ood` say by how much `blend` beats "guess the
task, ask its best model" on the same questions: on benchmarks that are known by no more than chance
(.45, from -.2 to 1.1), on others by far more (2.7, from 1.9 to 3.5), since who guesses among tasks
that are all wrong asks a specialist. The rows "within a benchmark" say why no more can be had of
the former. Once the task is known, a
regression on the question's text gains `within_gain` points over the task's best model, which is
about nothing (on some benchmarks it loses), while the oracle's lead there, `within_oracle_lead`, is
20. That lead is which of several models of one size happens to be right, and hardly in the text.

`llm` is not in the table: what an LLM would reply to its prompt is not recorded. `cascade` needs
several draws, `smoothie` and `jury` need answers: they are judged where these were recorded.

Vectors of questions are kept in a store (--store): only the first run embeds them.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from _routers_cascade import cascading
from _routers_cost import routellm, routerbench
from _routers_text import llmrouter, routerdc
from _routers_votes import recruiting, zeroeval
from _table import arguments, report

from swarm.optimizers.embedding import Encoder
from swarm.store import Store

MEASURED = {
    "routerdc": routerdc,
    "llmrouter": llmrouter,
    "routerbench0": routerbench,
    "routellm": routellm,
    "mmlu_pro": recruiting,
    "zeroeval": zeroeval,
    "mot_cascade": cascading,
}
"""Folder → what is measured on it."""


def main() -> None:
    parser = arguments(__doc__.partition("\n")[0])
    parser.add_argument("--train", type=Path, required=True, metavar="DIR")
    parser.add_argument("--test", type=Path, metavar="DIR")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--store", type=Path, metavar="FILE", help="where vectors are kept")
    parser.add_argument("--only", nargs="*", default=list(MEASURED), choices=list(MEASURED))
    options = parser.parse_args()
    place = options.store or Path.home() / ".cache" / "agent-swarm" / "embeddings.db"
    place.parent.mkdir(parents=True, exist_ok=True)
    headline: dict[str, Any] = {"splits": "given" if options.test else "own"}
    rows: list[dict[str, Any]] = []
    with Store.open(place) as store:
        encoder = Encoder(store=store)
        for name in options.only:
            started = time.perf_counter()
            found, more = MEASURED[name](options, encoder)
            headline |= found
            rows += more
            seconds = time.perf_counter() - started
            print(f"{name}: {seconds:.0f} s", file=sys.stderr)
    headline["seeds"] = options.seeds
    headline["measured_on"] = "two shared CPU cores; not measured on a GPU"
    report(headline, rows, options, by="on")


if __name__ == "__main__":
    main()
