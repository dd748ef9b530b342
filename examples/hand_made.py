"""A hand-made graph of real models: asked, streamed, scored, and used as a LangGraph node.

python examples/hand_made.py
"""

from pathlib import Path

import swarm

zoo = Path(__file__).parent / "zoo"
pool = swarm.Pool.load(zoo / "pool.toml")
task = swarm.Task.load(zoo / "relay.toml")
system = swarm.chain("times_lo", "times_hi", "minus_lo", "minus_hi", "gap", "mirror", pool=pool)

example = task.test[0]
print(example.question, "→", example.answer)
for agent, response in system.stream(example.question):
    print(f"  {agent}: {response}")

print(system.evaluate(task, split="test", limit=50).summary())

# The same system inside a LangGraph program of your own.
program = system.as_langgraph()
print(program.invoke({"questions": [example.question, task.test[1].question]})["answers"])
