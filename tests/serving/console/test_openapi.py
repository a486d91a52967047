"""The OpenAPI document names every route of the console, and no other."""

import asyncio

from fan_identity.serving.console.guard import PREFIX


def test_the_document_has_every_route_of_the_console(console):
    async def asked():
        async with console.client() as client:
            document = (await client.get("/openapi.json")).json()
            page = (await client.get("/docs")).text
            answers = {
                (path, method): (await client.request(method.upper(), path.format(**VALUES))).status_code
                for path, operations in document["paths"].items()
                if path.startswith(PREFIX)
                for method in operations
            }
            return document, page, answers

    document, page, answers = asyncio.run(asked())
    assert set(answers.values()) == {401}, "each is a route, and none is open"
    assert len(answers) == 16
    assert f"{PREFIX}/dead-letters/redrive" in page
    assert document["paths"][f"{PREFIX}/jobs/{{job}}"]["get"]["parameters"][0]["name"] == "job"


VALUES = {"id": "a" * 32, "kind": "cluster", "version": "v", "worker": "w", "job": "j"}


def test_a_lookup_without_a_console_names_none(console):
    async def asked():
        async with console.client(store=None, cache=console.address, table=console.address) as client:
            return (await client.get("/openapi.json")).json()

    assert not [path for path in asyncio.run(asked())["paths"] if path.startswith(PREFIX)]
