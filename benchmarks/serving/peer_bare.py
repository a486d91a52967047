"""The endpoint one would write: Starlette, redis.asyncio's pool, no authorisation; on the same uvicorn as ours."""

import json
import sys

import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def main() -> None:
    """Serves until a signal: ``REDIS-PORT PORT``."""
    redis_port, port = map(int, sys.argv[1:])
    client = redis.asyncio.Redis(port=redis_port)

    async def arm(request: Request) -> JSONResponse:
        value = await client.get(f"user:{request.path_params['user']}")
        return JSONResponse({"armScore": None if value is None else json.loads(value)["arm_risk"]})

    app = Starlette(routes=[Route("/arm/{user}", arm)])
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


if __name__ == "__main__":
    main()
