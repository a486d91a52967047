"""Leases on DynamoDB Local: exactly one takes what is free, and a loss is noticed."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from fan_identity.io import aws
from fan_identity.io.addresses import parse_address
from fan_identity.io.clock import now_ms
from fan_identity.io.dynamodb.table import DynamoDbTable
from fan_identity.io.leases import LEASE_SK, Lease, LeaseHeldError, LeaseLostError, lease_pk

ENDPOINT = "http://127.0.0.1:18000"


@pytest.fixture
def table(server):
    server("dynamodb")
    address = parse_address(f"dynamodb://test-{uuid.uuid4().hex}?region=us-east-1&endpoint={ENDPOINT}", "table")
    made = DynamoDbTable.of(address, "table")
    made.create()
    yield made
    aws.client("dynamodb", address, "table").delete_table(TableName=address.target)


@pytest.mark.parametrize("token", [0, 7])
def test_of_many_exactly_one_takes_it(table, token):
    for number in range(5):
        job = f"job {number}"
        if token:
            gone = {"owner": "gone", "run": "x", "acquiredAt": 1, "expiresAt": now_ms() - 1, "token": token}
            assert table.put_if_newer([(f"{token:012d}", {"PK": lease_pk(job), "SK": LEASE_SK, **gone})]) == [True]
        start, end = threading.Barrier(8), threading.Barrier(8)

        def race(number, job=job, start=start, end=end):
            start.wait()
            try:
                with Lease(table, job, f"racer {number}") as lease:
                    end.wait()
                    return lease.token
            except LeaseHeldError:
                end.wait()
                return 0

        with ThreadPoolExecutor(8) as pool:
            tokens = sorted(pool.map(race, range(8)))
        assert tokens == [0] * 7 + [token + 1]


def test_renewed_lost_and_given_back(table, until):
    with Lease(table, "job", "first", 3.0) as first:
        until(lambda: first.token >= 3, "it is renewed")
        with pytest.raises(LeaseHeldError, match="first"):
            Lease(table, "job", "second").__enter__()
        with Lease(table, "job", "second", 30.0, lambda: now_ms() + 60_000) as second:
            until(lambda: lost(first), "the loss is noticed")
            second.check()
    with Lease(table, "job", "third"):
        pass


def lost(lease):
    try:
        lease.check()
    except LeaseLostError:
        return True
    return False
