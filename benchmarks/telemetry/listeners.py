"""Who listens while telemetry is on: a collector that takes what it is sent, and a scraper that asks as often."""

import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from typing_extensions import override

SECONDS: Final = 5.0
"""Between two scrapes and two exports: three times as often as Prometheus asks where nobody says otherwise."""


@dataclass
class Heard:
    """What was heard.

    Attributes:
        exports: requests the collector took.
        scrapes: answers the scraper got.
    """

    exports: int = 0
    scrapes: int = 0


@contextmanager
def listening(port: int) -> Generator[tuple[dict[str, str], Heard]]:
    """Listens for the time of a ``with`` block.

    Args:
        port: where the program is to answer Prometheus.

    Yields:
        The environment of a program with telemetry on, and what was heard.
    """
    heard = Heard()
    done = threading.Event()

    class Collector(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            heard.exports += 1
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        @override
        def log_message(self, format: str, *args: Any) -> None:
            pass

    def scrape() -> None:
        while not done.wait(SECONDS):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=SECONDS) as answer:
                    answer.read()
                heard.scrapes += 1
            except OSError:
                pass  # it has not begun, or it has ended

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threads = [threading.Thread(target=do, daemon=True) for do in (server.serve_forever, scrape)]
        for thread in threads:
            thread.start()
        try:
            yield (
                {
                    "FAN_IDENTITY_METRICS_PORT": str(port),
                    "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
                    "OTEL_METRIC_EXPORT_INTERVAL": str(int(SECONDS * 1_000)),
                },
                heard,
            )
        finally:
            done.set()
            server.shutdown()
