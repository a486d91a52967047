"""An example DAG: the night's imports, then what was given up on sent again, then old versions deleted.

For Airflow 2.10 and later (with the standard provider) and 3. ``fan-identity`` must be on the workers' PATH, and its
settings in their environment: FAN_IDENTITY_TABLE, FAN_IDENTITY_CACHE, FAN_IDENTITY_DEAD_LETTERS; see docs/jobs.md.
"""

from datetime import timedelta

import pendulum
from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator

COMMANDS = {
    "import_clusters": "fan-identity imports start cluster s3://partner-drops/clusters/{{ ds }}/ --json",
    "import_bot_or_not": "fan-identity imports start bot-or-not s3://partner-drops/bot-or-not/{{ ds }}/ --json",
    "redrive": "fan-identity dead-letters redrive --reason model_unavailable --json",
    "clean_clusters": "fan-identity imports clean cluster --keep 7 --json",
    "clean_bot_or_not": "fan-identity imports clean bot-or-not --keep 7 --json",
}
"""By task. The two imports share a lock: run side by side, one would wait for its next try."""

ORDER = (
    ("import_clusters", "import_bot_or_not"),
    ("import_bot_or_not", "redrive"),
    ("import_clusters", "clean_clusters"),
    ("import_bot_or_not", "clean_bot_or_not"),
)
"""What runs after what, whether that succeeded or not: a refused import must not keep the others from running."""

# 1 is done, with bad rows among the dead letters; 2 (refused) and 3 (out of reach, or another run) fail the task. A
# refused import is tried again in vain, and writes nothing: look at its report, then mark it or raise a threshold.
DONE_WITH_DEAD_LETTERS = ' || { code=$?; [ "$code" -eq 1 ] || exit "$code"; }'

with DAG(
    dag_id="fan_identity_nightly",
    description="Clusters and bot-or-not scores of the night",
    schedule="30 2 * * *",
    start_date=pendulum.datetime(2026, 11, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5), "retry_exponential_backoff": True},
    tags=["fan-identity"],
) as dag:
    tasks = {
        name: BashOperator(
            task_id=name,
            bash_command=command + DONE_WITH_DEAD_LETTERS,
            append_env=True,
            trigger_rule="all_done" if any(name == after for _, after in ORDER) else "all_success",
        )
        for name, command in COMMANDS.items()
    }
    for before, after in ORDER:
        tasks[before] >> tasks[after]
