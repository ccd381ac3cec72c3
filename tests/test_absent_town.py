"""A town that has no keys here is no clean bill: the report says so, and where keys are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.command import tt
from tests.servers import Server
from tests.tables import each
from tests.users import refusals, user_without

WAYS = [("--check",), ("--dry-run",), ("--force",), ()]
ABSENT = "The town has no keys here: no old keys"
DATABASES = "Databases of this server that have keys: "


@pytest.fixture
def elsewhere(newest: Server) -> Server:
    """A server that has a town's old keys in database 5, and keys of others in database 2."""
    newest.client(db=5).mset({"tt:agent:1": 1, "tt:inbox:1": 1})
    newest.client(db=2).set("other", 1)
    return newest


def document(*args: str, **kwargs: Any) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(tt("--json", *args, **kwargs).stdout)
    return parsed


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("plan", [(), ("--upgrade",), ("--hash",), ("--legacy-prefix=mt",)])
def test_it_is_said_where_keys_are(
    elsewhere: Server, plan: tuple[str, ...], way: tuple[str, ...]
) -> None:
    done = tt(*plan, *way, url=elsewhere.url)
    promised, _, rest = done.stdout.partition("No migration needed - all ")
    assert (done.returncode, promised) == (0, "✅ ")
    assert ABSENT in rest
    assert rest.rstrip().endswith(DATABASES + "2 (1 key), 5 (2 keys)")
    assert (done.stdout.count("\n") == 1) == (way == ("--check",))
    found = document(*plan, *(way or ("--force",)), url=elsewhere.url)
    assert (found["absent"], found["databases"]) == (True, {"2": 1, "5": 2})


def test_keys_of_version_0_1_are_not_denied_where_nobody_looked_for_them(newest: Server) -> None:
    newest.client().set("mt:agent:1", 1)
    for way in ("--dry-run", "--force"):
        assert (
            f"{ABSENT} that begin with tt:, and none with its name"
            in tt(way, url=newest.url).stdout
        )
    newest.client().flushall()
    assert f"{ABSENT}, and none with its name" in tt("--check", url=newest.url).stdout


@each("way", WAYS)
def test_a_way_back_says_only_that_no_key_has_the_name(
    newest: Server, way: tuple[str, ...]
) -> None:
    # These are perhaps the town's, reversed already.
    newest.client().set("tt:agent:1", 1)
    for plan in ("--reverse", "--downgrade"):
        done = tt(plan, *way, url=newest.url)
        assert done.returncode == 0
        assert "No key here has the town's name" in done.stdout
        assert "The town has no keys" not in done.stdout
        assert DATABASES + "0 (1 key)" in done.stdout


@pytest.mark.parametrize("way", WAYS)
def test_a_renamed_town_is_looked_for_under_both_names(
    elsewhere: Server, way: tuple[str, ...]
) -> None:
    redis = elsewhere.client()
    said = "The town has no keys here, under either name"
    done = tt("--from-town=old", *way, url=elsewhere.url)
    assert (done.returncode, said in done.stdout, DATABASES in done.stdout) == (0, True, True)
    for key in ("tt:my-project:backlog", "tt:old:docket:events"):
        redis.xadd(key, {"a": 1})
        done = tt("--from-town=old", *way, url=elsewhere.url)
        assert (done.returncode, said in done.stdout, DATABASES in done.stdout) == (0, False, False)
        redis.flushdb()


@each("way", WAYS)
@each("keys", [1, 2])
def test_ambiguous_keys_may_be_the_towns(newest: Server, way: tuple[str, ...], keys: int) -> None:
    for key in ("tt:task:backlog", "tt:agent:events")[:keys]:
        newest.client().set(key, 1)
    number = "1 key" if keys == 1 else "2 keys"
    for plan in ((), ("--upgrade",)):
        done = tt(*plan, *way, url=newest.url)
        assert (done.returncode, "has no keys" in done.stdout) == (0, False)
        assert f"No key here is known to be the town's: {number} may be, or may" in done.stdout
        found = document(*plan, *(way or ("--force",)), url=newest.url)
        assert (found["absent"], found["databases"]) == (False, None)
    newest.client().hset("tt:my-project:agent:1", "a", "b")
    assert "is known to be" not in tt(*way, url=newest.url).stdout


@each("way", WAYS)
def test_an_empty_server_has_no_database_with_keys(newest: Server, way: tuple[str, ...]) -> None:
    done = tt(*way, url=newest.url)
    assert (done.returncode, DATABASES + "none" in done.stdout) == (0, True)


@pytest.mark.parametrize("way", WAYS)
def test_quiet_says_nothing_for_it_is_no_problem(elsewhere: Server, way: tuple[str, ...]) -> None:
    done = tt("--quiet", *way, url=elsewhere.url)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@each("way", WAYS)
@each("key", ["tt:my-project:agent:1", "tt:my-project:events"])
def test_a_town_with_keys_is_not_absent_and_costs_nothing_more(
    server: Server, key: str, way: tuple[str, ...]
) -> None:
    def cost(*args: str) -> tuple[dict[str, Any], int]:
        server.client().config_resetstat()
        found = document(*args, *(way or ("--force",)), url=server.url)
        stats: Any = server.client().info("commandstats")
        return found, stats["cmdstat_info"]["calls"]

    server.client().hset(key, "a", "b")
    present, calls = cost()
    absent, more_calls = cost("--town-name=lonely-town")
    assert (present["absent"], present["databases"]) == (False, None)
    assert (absent["absent"], absent["databases"]) == (True, {"0": 1})
    assert more_calls == calls + 1
    assert DATABASES not in tt(*way, url=server.url).stdout


@each("way", WAYS)
def test_without_the_permission_for_info_nothing_more_is_refused(
    server: Server, way: tuple[str, ...]
) -> None:
    server.client(db=5).set("tt:agent:1", 1)
    user_without(server, "info").close()
    url = server.url.replace("://", "://less:secret@", 1)
    done = tt(*way, url=url)
    assert (done.returncode, ABSENT in done.stdout, DATABASES in done.stdout) == (0, True, False)
    seen = refusals(server)
    server.client().acl_log_reset()
    server.client().hset("tt:my-project:agent:1", "a", "b")
    assert tt(*way, url=url).returncode == 0
    assert refusals(server) == seen


@each("way", WAYS)
def test_a_cluster_has_one_database(shard: Server, way: tuple[str, ...]) -> None:
    done = tt(*way, url=shard.url)
    assert (done.returncode, ABSENT in done.stdout, DATABASES in done.stdout) == (0, True, False)


def test_a_run_that_failed_does_not_know(newest: Server, tmp_path: Path) -> None:
    found = document("--check", url=f"unix://{tmp_path}/none")
    assert (found["absent"], found["databases"], found["former_guess"]) == (None, None, None)


def test_the_present_database_is_named_too(newest: Server) -> None:
    newest.client().mset({"tt:web:agent:1": 1, "tt:shop:agent:1": 1})
    done = tt("--dry-run", url=newest.url)
    assert ABSENT in done.stdout
    assert DATABASES + "0 (2 keys)" in done.stdout
    assert "Other towns in this database: shop, web" in done.stderr


def test_a_former_name_is_guessed_as_before(newest: Server) -> None:
    newest.client().hset("tt:web:agent:1", "a", "b")
    said = tt("--check", url=newest.url).stdout
    assert "The town has no keys here, but web has: if that is its former name" in said
    assert said.rstrip().endswith(DATABASES + "0 (1 key)")
