"""PostgreSQL for Unleash: a database of its own on loopback, behind a password, as a user it accepts to run as."""

import os
import pwd
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Final

from fetching import UnavailableError, installed, last_line
from processes import Launch

_USER: Final = "postgres"


def database_url(run: Path, port: int) -> str:
    """The address Unleash connects to, password included: for its environment only.

    Args:
        run: PostgreSQL's folder.
        port: on 127.0.0.1.
    """
    return f"postgres://postgres:{(run / 'password').read_text()}@127.0.0.1:{port}/postgres"


def launch(run: Path, port: int) -> Launch:
    """Makes the database where there is none and says how to start the server.

    Raises:
        UnavailableError: PostgreSQL or its user is missing, or the database cannot be made.
    """
    server = Path(installed(_find, "postgresql", run / "fetch.log"))
    uid, gid = _user()
    data = data_folder(run)
    if not (data / "PG_VERSION").is_file():
        _make(server.with_name("initdb"), run, data, uid, gid)
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": "",
        "max_connections": 50,
        "shared_buffers": "32MB",
        "fsync": "off",  # what is in it is worth nothing
    }
    options = [text for name, value in settings.items() for text in ("-c", f"{name}={value}")]
    return Launch((str(server), "-D", str(data), *options), uid=uid, gid=gid)


def data_folder(run: Path) -> Path:
    """Where the database is: in ``data``; in its user's home where that user cannot get there (a checkout in /root)."""
    data = run / "data"
    if os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in run.parents if folder.exists()):
        return data
    try:
        home = Path(pwd.getpwnam(_USER).pw_dir)
    except KeyError:
        return data
    return home / f"fan-identity{str(run).replace('/', '-')}"


def _find() -> str | None:
    """The server's program: on PATH, or the newest where Debian puts it."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return shutil.which("postgres") or max(map(str, versions), default=None)


def _user() -> tuple[int | None, int | None]:
    """The user and group to become: none, unless we are root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None, None
    try:
        entry = pwd.getpwnam(_USER)
    except KeyError:
        raise UnavailableError(f"PostgreSQL does not run as root, and there is no user {_USER}") from None
    return entry.pw_uid, entry.pw_gid


def _make(initdb: Path, run: Path, data: Path, uid: int | None, gid: int | None) -> None:
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, mode=0o700)
    password, log = run / "password", run / "initdb.log"
    password.unlink(missing_ok=True)
    password.touch(mode=0o600)
    password.write_text(secrets.token_hex(16))
    handed = data.with_name(f"{data.name}.password")
    shutil.copy(password, handed)
    if uid is not None and gid is not None:
        os.chown(data, uid, gid)
        os.chown(handed, uid, gid)
    flags = ("--auth=scram-sha-256", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
    with log.open("wb") as output:
        done = subprocess.run(  # noqa: S603 - a command of our own
            [str(initdb), "-D", str(data), f"--pwfile={handed}", *flags],
            cwd="/",
            stdout=output,
            stderr=subprocess.STDOUT,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            check=False,
        )
    handed.unlink()
    if done.returncode:
        raise UnavailableError(f"initdb ended with {done.returncode}: {last_line(log)} (all of it: {log})")
