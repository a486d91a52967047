"""The API over HTTP: the ARM endpoint as plain ASGI, everything else on Starlette."""
