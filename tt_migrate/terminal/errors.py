"""Turns redis-py's errors into messages for people."""

from __future__ import annotations

import re
from pathlib import Path

from redis import exceptions as redis_errors

from tt_migrate.engine.calls.announced import is_unreachable, server_of_error
from tt_migrate.engine.calls.retry import CutOffError
from tt_migrate.engine.calls.server import (
    ObstacleError,
    UnansweredError,
    UnsupportedServerError,
    UnsyncedReplicaError,
)
from tt_migrate.escape import shown_text
from tt_migrate.settings.sentinel import MasterAwayError, SentinelError
from tt_migrate.settings.url import write_url
from tt_migrate.terminal.redaction import NO_SECRETS, Redactor

_NEEDED = (
    "SCRIPT LOAD, EVALSHA, SCAN and EXISTS, RENAMENX to migrate, SELECT for a database other than"
    " 0, CLUSTER INFO, DUMP, PTTL, RESTORE and DEL in cluster mode, and more for several shards,"
    " hashes, merges and --from-town"
)
_Sign = type[Exception] | str
_MEANINGS: tuple[tuple[tuple[_Sign, ...], str], ...] = (
    (
        (MasterAwayError,),
        # Not part of {text}, where a word that equals a password is hidden.
        "{text}. If this machine cannot reach that address, correct it in sentinel monitor, or in"
        " replica-announce-ip of a promoted replica; sentinel announce-ip is a Sentinel's own",
    ),
    ((UnsupportedServerError, UnsyncedReplicaError, SentinelError), "{text}"),
    # Before the signs that are words, because its text can be anything.
    (
        (redis_errors.InvalidResponse,),
        "the reply does not come from Redis. Is the address right, and is TLS on at both ends or"
        " at neither?",
    ),
    (("Connection refused",), "nothing is listening there. Is the server running?"),
    (("No such file",), "the socket does not exist. Is the town's Redis running?"),
    (
        ("Permission denied",),
        "the current system user may not open the socket: check its permissions",
    ),
    (
        ("Name or service", "name resolution", "nodename nor servname", "No address associated"),
        "the host name is unknown. Is it right, and is the network up?",
    ),
    ((redis_errors.BusyLoadingError,), "it is still loading its data: try again later"),
    (
        ("NOAUTH", "Authentication required", "HELLO must be called"),
        "it requires a password: put it in the URL, or if a town's file is used, in"
        " TINYTOWN_REDIS_PASSWORD",
    ),
    (
        ("without any password configured",),
        "it has no password, but one was given: leave out the password",
    ),
    (
        (redis_errors.NoPermissionError, "NOPERM", "no permission", "can't run this command"),
        f"the user lacks a permission ({{text}}). Needed are {_NEEDED}",
    ),
    ((redis_errors.AuthenticationError,), "wrong user name or password"),
    ((redis_errors.ReadOnlyError,), "it is a read-only replica: use the URL of its master"),
    (
        ("a master has become a replica",),
        "its masters change again and again: run it again when they have come to rest",
    ),
    (
        ("MASTERDOWN", "Link with MASTER is down"),
        "it is a replica that lost its master and serves no stale data: try again later",
    ),
    (("MISCONF",), "it refuses writes because it cannot save to disk: see its log"),
    (("NOREPLICAS",), "it refuses writes because too few of its replicas are connected"),
    (
        ("CLUSTERDOWN", "cluster is down", "not served"),
        "its cluster is down, or does not serve all slots: try again later ({text})",
    ),
    (
        ("UNREPLICATED",),
        "its replicas do not confirm writes, so keys in transit stay hidden, and safe: run it"
        " again when the replicas work ({text})",
    ),
    (
        ("TRYAGAIN",),
        "slots are moving: run it again. If a move was left half done, redis-cli --cluster fix ends"
        " it ({text})",
    ),
    (
        ("NOTLOCAL",),
        "a key is on another server: slots are moving, so run it again, or a proxy hides a cluster"
        " of several shards, so use the URL of one of its nodes ({text})",
    ),
    (("BUSY ",), "it is busy with another client's script: try again later"),
    ((redis_errors.OutOfMemoryError,), "it is out of memory ({text})"),
    (("DB index is out of range",), "it has no database with that number"),
    (
        ("SELECT is not allowed in cluster mode",),
        "it is in cluster mode, which has database 0 only: leave out the database",
    ),
    (
        ("Key Identifier", "key usage", "Basic Constraints of CA cert", "Path length"),
        "its certificate lacks what the strict check of Python 3.13 and later wants ({text}): make"
        " a new one, or verify it less strictly: add ssl_exclude_verify_flags=VERIFY_X509_STRICT to"
        " a rediss:// URL",
    ),
    (
        ("certificate has expired", "certificate is not yet valid"),
        "its certificate is out of date, or this machine's clock is wrong ({text})",
    ),
    (
        ("Hostname mismatch", "IP address mismatch"),
        "its certificate is for another host name: use that name ({text})",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "its certificate cannot be verified: check tls_ca_cert, or ssl_ca_certs in the URL"
        " ({text})",
    ),
    (
        ("SSL", "_ssl.c"),
        "TLS failed: is it a TLS port, and does it require a client certificate? ({text})",
    ),
    (
        (UnansweredError,),
        "it answered before, but now not in time: it hangs, or is busy with a long command, which"
        " it may still finish. Look at its load, or give a longer socket_timeout in the URL",
    ),
    (
        (redis_errors.TimeoutError,),
        "no answer in time. Is the address right, and is TLS on at both ends or at neither?",
    ),
    (
        ("the reply to COMMAND",),
        "it closes the connection in place of the reply to COMMAND, which the client of a cluster"
        " needs. If its log says that the client's output buffer is full, raise"
        " client-output-buffer-limit",
    ),
    (
        (CutOffError,),
        "it closes the connection in place of a script's reply. If its log says that the client's"
        " output buffer is full, raise client-output-buffer-limit or give a smaller --max-pause"
        " ({text})",
    ),
    (
        ("closed by server", "reset by peer", "Broken pipe"),
        "it closed the connection. Is it still running, and is TLS on at both ends or at neither? A"
        " proxy such as twemproxy closes it too, because it cannot run the scripts",
    ),
    (
        ("unknown command `HELLO`", "unknown command 'HELLO'"),
        "it does not know HELLO: it may be older than Redis 6, or a proxy. Try ?protocol=2 in the"
        " URL",
    ),
    (("NOPROTO",), "it does not speak RESP3: add ?protocol=2 to the URL ({text})"),
    (
        ("CROSSSLOT", "same slot"),
        "its keys are spread over several shards, of which a script sees one: use a database with"
        " one shard ({text})",
    ),
    (
        ("input keys", "number of keys", "numkeys", "KEYS array"),
        "it runs no scripts without declared keys: use a server that does, such as a node-based"
        " cluster of the same service ({text})",
    ),
    (
        ("undeclared key",),
        "it lets scripts use declared keys only: allow undeclared keys in its settings ({text})",
    ),
    (
        ("scripting support disabled",),
        "its Lua scripts are switched off: Garnet needs the option --lua ({text})",
    ),
    ((ObstacleError,), "it does not let scripts look at keys ({text})"),
    (
        ("NOCOMMAND", "nknown command", "Unknown Redis command", "Unknown Redis Command"),
        "it does not know {command}: renamed or disabled (rename-command), or blocked by a proxy",
    ),
    ((redis_errors.ConnectionError,), "the connection failed ({text})"),
)
"""Signs of an error (its class or a part of its text), and its message. The first match wins."""

_COMMAND = re.compile(r"(?:NOCOMMAND|nknown command)[:,]? ['`\"]?([\w.-]+(?:, [\w.-]+)*)")


def explain(
    error: Exception,
    shown_url: str,
    redactor: Redactor = NO_SECRETS,
    old_socket: Path | None = None,
) -> str:
    """Explain an error of redis-py in one line: which server, what happened, what to do.

    `shown_url`: the server's redacted URL. `redactor`: hides passwords in the server's own text
    and escapes it. `old_socket`: as in Endpoint.
    """
    # A server repeats the arguments of an unknown command; for AUTH they include the password.
    text, _, _ = " ".join(str(error).split()).partition(", with args beginning with")
    if old_socket and "No such file" in text and old_socket.is_socket():
        return (
            f"Redis at {shown_url}: the socket does not exist, but there is one of Tinytown 0.5 or"
            f" older at {shown_text(str(old_socket))}: give"
            f" --redis-url {write_url('unix', {'path': str(old_socket)})}, or set socket_path"
        )
    said = {"text": redactor.shown(text.rstrip(".")), "command": _command(text, redactor)}
    who = f"Redis at {shown_url}"
    if server := server_of_error(error):
        address = redactor.shown(server.address)
        if is_unreachable(error):
            return (
                f"{who}: its cluster announces a master at {address}, which cannot be reached from"
                " here: is it running? If the address is wrong, set cluster-announce-ip or"
                f" cluster-announce-hostname on that server ({said['text']})"
            )
        who = f"Redis at {address}, which the {server.by} at {shown_url} named"
    for signs, meaning in _MEANINGS:
        if any(
            sign in text if isinstance(sign, str) else isinstance(error, sign) for sign in signs
        ):
            return f"{who}: {meaning.format(**said)}"
    return f"{who}: {said['text'] or type(error).__name__}"


def _command(text: str, redactor: Redactor) -> str:
    named = _COMMAND.search(text)
    if not named:
        return "a command that a script calls"
    return f"the command{'s' if ',' in named[1] else ''} {redactor.shown(named[1])}"
