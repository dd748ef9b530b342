"""A recorded pool: what models once answered is enough to judge a router, and runs no model.

python examples/recorded.py
"""

import swarm
from swarm.optimizers.wording import WordingOptimizer

# One question a line, as `swarm export RUN --pool` writes it: `sums` is right about sums only,
# `letters` about words only. Half of the questions are there to learn from.
lines = [
    {
        "id": f"{split}-{n}",
        "benchmark": "small",
        "split": split,
        "question": f"what is {n} plus {n}?" if n % 2 else f"how many letters has {'x' * n}?",
        "scores": {"sums": float(n % 2), "letters": float(1 - n % 2)},
        "answers": {"sums": str(2 * n), "letters": str(n)},
    }
    for split, numbers in (("dev", range(1, 21)), ("test", range(21, 31)))
    for n in numbers
]

recording = swarm.Recording.from_records(lines)  # of a file: `swarm.Recording.load(path)`
dev, test = (
    recording.subset(rows=[row.split == split for row in recording.rows])
    for split in ("dev", "test")
)
print("alone on test:", test.means(), "the best for each:", test.oracle())

pool, task = swarm.Pool.recorded(recording), swarm.Task.recorded({"dev": dev, "test": test})
system = WordingOptimizer().fit(task, pool)
print("score:", system.evaluate(task).summary())
