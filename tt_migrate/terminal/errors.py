"""From an error of redis-py to words for a person."""

from __future__ import annotations

import re
from pathlib import Path

from redis import exceptions as redis_errors

from tt_migrate.engine.server import UnsupportedServerError, UnsyncedReplicaError
from tt_migrate.escape import shown_text
from tt_migrate.settings.url import write_url
from tt_migrate.terminal.foreign import NO_SECRETS, Foreign

_NEEDED = (
    "SCRIPT LOAD, EVALSHA, SCAN, EXISTS, to migrate RENAMENX, for a database but 0 SELECT, and more"
    " for hashes and merges"
)
_Sign = type[Exception] | str
_MEANINGS: tuple[tuple[tuple[_Sign, ...], str], ...] = (
    ((UnsupportedServerError, UnsyncedReplicaError), "{text}"),
    # First, since its text may be anything.
    (
        (redis_errors.InvalidResponse,),
        "what answers there is not Redis. Is the address right, and is TLS on at both ends or at"
        " neither?",
    ),
    (("Connection refused",), "nothing listens there. Is it running?"),
    (("No such file",), "no such socket. Is the town's Redis running?"),
    (("Permission denied",), "this user of the machine may not open the socket"),
    (
        ("Name or service", "name resolution", "nodename nor servname", "No address associated"),
        "no such host is known. Is its name right, and the network there?",
    ),
    ((redis_errors.BusyLoadingError,), "it is loading its data: try again when it is done"),
    (
        ("NOAUTH", "Authentication required", "HELLO must be called"),
        "it wants a password: put it into the URL, or for a town's file into"
        " TINYTOWN_REDIS_PASSWORD",
    ),
    (("without any password configured",), "it has no password, but one was given"),
    (
        (redis_errors.NoPermissionError, "NOPERM", "no permission", "can't run this command"),
        f"the user lacks a permission; {_NEEDED} are needed ({{text}})",
    ),
    ((redis_errors.AuthenticationError,), "wrong user name or password"),
    ((redis_errors.ReadOnlyError,), "it is a read-only replica: use the URL of its master"),
    (
        ("MASTERDOWN", "Link with MASTER is down"),
        "it is a replica without its master, and serves no stale data",
    ),
    (("MISCONF",), "it takes no writes because it cannot save to disk: see its log"),
    (("NOREPLICAS",), "it takes no writes because too few of its replicas are there"),
    (("BUSY ",), "a script of somebody else holds it: try again later"),
    ((redis_errors.OutOfMemoryError,), "it is full ({text})"),
    (("DB index is out of range",), "it has no database of that number"),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "its certificate cannot be verified: is tls_ca_cert, or ssl_ca_certs in the URL, the right"
        " one? ({text})",
    ),
    (
        ("SSL", "_ssl.c"),
        "TLS failed: is it a TLS port, and does it want a client certificate? ({text})",
    ),
    (
        (redis_errors.TimeoutError,),
        "no answer in time. Is the address right, and is TLS on at both ends or at neither?",
    ),
    (
        ("closed by server", "reset by peer", "Broken pipe"),
        "it hung up. Is TLS on at both ends or at neither, and is it still running?",
    ),
    (
        ("unknown command `HELLO`", "unknown command 'HELLO'"),
        "it does not know HELLO. Is it older than Redis 6, or a proxy? That may need ?protocol=2",
    ),
    (
        ("NOCOMMAND", "nknown command", "Unknown Redis command", "Unknown Redis Command"),
        "it does not know {command}: renamed or disabled there (rename-command), or not passed on"
        " by a proxy",
    ),
    ((redis_errors.ConnectionError,), "the connection failed ({text})"),
)
"""What an error is recognised by, in this order: its class, or a piece of its text."""

_COMMAND = re.compile(r"(?:NOCOMMAND|nknown command)[:,]? ['`\"]?([\w.-]+(?:, [\w.-]+)*)")


def explain(
    error: Exception,
    shown_url: str,
    foreign: Foreign = NO_SECRETS,
    old_socket: Path | None = None,
) -> str:
    """One line for a person about an error of redis-py: what happened, to which server, what to do.

    `shown_url`: the server, redacted. `foreign`: shows the server's own words. `old_socket`: as an
    Endpoint has it.
    """
    # A server repeats the arguments of a command that it does not know: AUTH's are the password.
    text, _, _ = " ".join(str(error).split()).partition(", with args beginning with")
    if old_socket and "No such file" in text and old_socket.is_socket():
        return (
            f"Redis at {shown_url}: no such socket, but Tinytown until 0.5 had it where"
            f" {shown_text(str(old_socket))} is: give"
            f" --redis-url {write_url('unix', {'path': str(old_socket)})}, or set socket_path"
        )
    said = {"text": foreign.shown(text.rstrip(".")), "command": _command(text, foreign)}
    for signs, meaning in _MEANINGS:
        if any(
            sign in text if isinstance(sign, str) else isinstance(error, sign) for sign in signs
        ):
            return f"Redis at {shown_url}: {meaning.format(**said)}"
    return f"Redis at {shown_url}: {said['text'] or type(error).__name__}"


def _command(text: str, foreign: Foreign) -> str:
    named = _COMMAND.search(text)
    if not named:
        return "a command that a script calls"
    return f"the command{'s' if ',' in named[1] else ''} {foreign.shown(named[1])}"
