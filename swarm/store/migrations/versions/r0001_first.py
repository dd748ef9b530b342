"""The tables of the first release.

A revision is a record of the past: it spells its columns out and imports nothing of the package.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("summary", sa.Text),
        sa.Column("state", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("parent_id", sa.Integer),
        sa.Column("key", sa.LargeBinary),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.ForeignKeyConstraint(["parent_id"], ["runs.id"], name="fk_runs_parent_id"),
    )
    op.create_index("ix_runs_key", "runs", ["key"])
    op.create_table(
        "experts",
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_experts"),
    )
    op.create_table(
        "graphs",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_graphs"),
    )
    op.create_table(
        "prompts",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("messages", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_prompts"),
    )
    op.create_table(
        "questions",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("example_id", sa.Text, nullable=False),
        sa.Column("question", sa.Text, nullable=False),
        sa.Column("gold", sa.Text),
        sa.PrimaryKeyConstraint("digest", name="pk_questions"),
    )
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("base", sa.Text, nullable=False),
        sa.Column("experts", sa.Text, nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("load_seconds", sa.Double, nullable=False),
        sa.Column("loaded", sa.Boolean, nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_batches_run_id"),
    )
    op.create_index("ix_batches_run_id", "batches", ["run_id"])
    op.create_table(
        "answers",
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("expert", sa.LargeBinary, nullable=False),
        sa.Column("prompt", sa.LargeBinary, nullable=False),
        sa.Column("draw", sa.Integer, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("prompt_tokens", sa.Integer, nullable=False),
        sa.Column("completion_tokens", sa.Integer, nullable=False),
        sa.Column("finish", sa.Text, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("batch_id", sa.Integer),
        sa.PrimaryKeyConstraint("key", name="pk_answers"),
        sa.ForeignKeyConstraint(["expert"], ["experts.fingerprint"], name="fk_answers_expert"),
        sa.ForeignKeyConstraint(["prompt"], ["prompts.digest"], name="fk_answers_prompt"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_answers_batch_id"),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("run_id", sa.Integer, nullable=False),
        sa.Column("graph", sa.LargeBinary, nullable=False),
        sa.Column("split", sa.Text, nullable=False),
        sa.Column("task", sa.LargeBinary, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("info", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_evaluations_run_id"),
        sa.ForeignKeyConstraint(["graph"], ["graphs.digest"], name="fk_evaluations_graph"),
    )
    op.create_index("ix_evaluations_run_id", "evaluations", ["run_id"])
    op.create_table(
        "traces",
        sa.Column("evaluation_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("question", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.Text),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("evaluation_id", "number", name="pk_traces"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], name="fk_traces_evaluation_id"
        ),
        sa.ForeignKeyConstraint(["question"], ["questions.digest"], name="fk_traces_question"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "calls",
        sa.Column("evaluation_id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("agent", sa.SmallInteger, nullable=False),
        sa.Column("key", sa.LargeBinary),
        sa.Column("cached", sa.Boolean, nullable=False),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("evaluation_id", "number", "agent", name="pk_calls"),
        sa.ForeignKeyConstraint(
            ["evaluation_id", "number"],
            ["traces.evaluation_id", "traces.number"],
            name="fk_calls_evaluation_id_number",
        ),
        sqlite_with_rowid=False,
    )
