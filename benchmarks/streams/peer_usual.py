"""Peer C: the scoring worker most would write: eight threads with httpx, boto3 and redis-py, message by message.

The same effects as ours for each message: the user's newest ARAI item is read, the model asked, the score written, the
latest item where newer, the ARM cache where newer, then the message is deleted.
"""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import boto3.session
import httpx
import redis
from boto3.dynamodb import conditions
from botocore.exceptions import ClientError

from ...domain.profile import FEATURES
from .rounds import Stopwatch
from .systems import DYNAMODB, REDIS_DB, REDIS_PORT, SQS, aws

THREADS: Final = 8
# No types.
_boto3: Any = boto3.session
_Key: Any = conditions.Key

_NEWER_WINS: Final = """
local current = redis.call('GET', KEYS[1])
if current and cjson.decode(current).version >= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""


class Worker:
    """Scores messages of one queue."""

    def __init__(self, queue: str, table: str, model: str, total: int) -> None:
        self._sqs = aws("sqs", SQS, THREADS)
        self._url = self._sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        self._table_name = table
        self._model = model
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._http = httpx.Client(timeout=3)
        client = redis.Redis(port=REDIS_PORT, db=REDIS_DB)
        self._newer_wins: Any = client.register_script(_NEWER_WINS)
        self._making = threading.Lock()
        self.watch = Stopwatch()

    def run(self) -> int:
        """Works in all threads until all messages are scored."""
        self.watch.start()
        with ThreadPoolExecutor(THREADS) as pool:
            for ended in [pool.submit(self._work) for _ in range(THREADS)]:
                ended.result()
        return self._done

    def _work(self) -> None:
        with self._making:
            session = _boto3.Session()
            table: Any = session.resource("dynamodb", endpoint_url=DYNAMODB).Table(self._table_name)
        while self._done < self._total:
            answer = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            for message in answer.get("Messages", []):
                self._score(table, json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
                with self._lock:
                    self._done += 1
                    self.watch.effect()

    def _score(self, table: Any, message: dict[str, Any]) -> None:
        user, pk = message["globalUserId"], f"USER#{message['globalUserId']}"
        found = table.query(
            KeyConditionExpression=_Key("PK").eq(pk) & _Key("SK").begins_with("ARAI#"),
            ScanIndexForward=False,
            Limit=1,
            ConsistentRead=True,
        )["Items"]
        arai: dict[str, Any] = found[0]["araiResponse"] if found else {}
        features = {name: _number(arai.get("features", {}).get(name)) for name in FEATURES}
        moment = datetime.fromtimestamp(message["occurredAt"] / 1_000, UTC).isoformat(timespec="milliseconds")
        asked = {
            "globalUserId": user,
            "activity": message["activity"],
            "activityType": message["activityType"],
            "occurredAt": moment,
            "arai": {"features": features},
            "features": features,
        }
        score: dict[str, Any] = self._http.post(self._model, json=asked).raise_for_status().json()
        version = f"{moment}#{message['activityId']}"
        item: dict[str, Any] = {
            "PK": pk,
            "SK": f"SCORE#{version}",
            "type": "score",
            "globalUserId": user,
            "activityId": message["activityId"],
            "activityType": message["activityType"],
            "occurredAt": moment,
            "requestId": message["requestId"],
            "dateUpdated": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
            **json.loads(json.dumps(score), parse_float=Decimal),
        }
        table.put_item(Item=item)
        try:
            table.put_item(
                Item={**item, "SK": "LATEST", "scoreSK": item["SK"], "version": version},
                ConditionExpression="attribute_not_exists(version) OR version < :version",
                ExpressionAttributeValues={":version": version},
            )
        except ClientError as error:
            response: Any = error.response
            if response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
        cached = {"global_user_id": user, "arm_risk": score["armRisk"], "timestamp": message["occurredAt"]}
        self._newer_wins(
            keys=[f"user:{user}"], args=[version, json.dumps({**cached, "score_date": moment[:10], "version": version})]
        )


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value


def main() -> None:
    """Scores the messages of queue ``argv[1]`` into table ``argv[2]`` by model ``argv[3]``, ``argv[4]`` of them."""
    queue, table, model, total = sys.argv[1:]
    worker = Worker(queue, table, model, int(total))
    done = worker.run()
    print(json.dumps(worker.watch.result(done)))


if __name__ == "__main__":
    main()
