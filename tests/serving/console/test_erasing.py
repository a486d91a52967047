"""Erasing a fan whose dead letter an operator looked at: nothing of the fan is left, and the chain stays whole."""

import json
import sqlite3

FAN = "fan-to-be-forgotten@example.com"


def test_erasing_a_fan_breaks_no_chain(console, cli):
    payload = json.dumps({"activityId": "a-7", "globalUserId": FAN, "activityType": "login", "occurredAt": 1}).encode()
    letter = console.letter(7, payload=payload, activity_id="a-7")
    console.letters.write([letter, console.letter(8)])
    revealed, filtered = console.ask(
        (f"dead-letters/{letter.dead_letter_id}/reveal", {}),
        ("dead-letters/redrive", {"filter": {"activity": FAN}, "expected": 1}),
    )
    assert FAN in revealed.json()["payload"]
    assert filtered.status_code == 409
    head = console.audit.head()
    erased = cli("erase", FAN, "--store", console.address)
    assert erased.code == 0, erased.err
    assert console.letters.get(letter.dead_letter_id) is None
    assert cli("audit", "verify", "--store", console.address, "--head", head.hash).code == 0
    rows = sqlite3.connect(console.folder / "fans.db").execute("SELECT pk, sk, body FROM items").fetchall()
    assert any(pk == "AUDIT" for pk, _, _ in rows)
    assert FAN not in str(rows)
