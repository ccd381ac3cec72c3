"""What a person signs off: where a preview looks, long lists, hints, other towns."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.command import sent_to_a_terminal, tt, tt_in_process
from tests.servers import Server

FAMILIES = ("agent", "inbox", "urgent", "task", "activity", "stop")


def where(server: Server, town: str = "my-project") -> dict[str, str]:
    return {"TT_MIGRATE_REDIS_URL": server.url, "TT_MIGRATE_TOWN_NAME": town}


@pytest.fixture
def large(newest: Server) -> Server:
    """A server with 50 keys of each family with an id, and the backlog."""
    newest.client().mset({f"tt:{family}:{n:02}": 1 for family in FAMILIES for n in range(50)})
    newest.client().set("tt:backlog", 1)
    return newest


def test_a_preview_says_on_stderr_where_it_looked(server: Server) -> None:
    redis = server.client(db=3)
    redis.mset({"tt:agent:1": 1, "tt:web:agent:1": 1, "tt:x:y:backlog": 1, "else": 1})
    url = server.url.replace("/0", "/3")
    for options in ((), ("--upgrade",), ("--hash",), ("--reverse",)):
        done = tt("--dry-run", *options, url=url, REDIS_PASSWORD="")
        name, _, version = server.kind.name.partition("-")
        first, *rest = done.stderr.splitlines()
        assert first.startswith(f"Server: {name} {version}.")
        assert first.endswith(f", master, {url}")
        assert rest == ["Database: 3, 4 keys", "Other towns in this database: web, x:y"]
    assert tt("--dry-run", "--quiet", url=url).stderr == ""
    found = json.loads(tt("--dry-run", "--json", url=url).stdout)
    assert (found["database"], found["dbsize"], found["towns"]) == (3, 4, ["web", "x:y"])


def test_a_preview_does_not_name_its_own_town_as_another(newest: Server) -> None:
    for town in ("agent", "a:b", "x[1]*?\\^-", "task:1"):
        newest.client().flushall()
        names = ("agent:1", "backlog", "events", "docket:1", "mission:active", "task:backlog")
        newest.client().mset({f"tt:{town}:{name}": 1 for name in names})
        newest.client().set("tt:agent:1", 1)
        done = tt("--dry-run", url=newest.url, town=town)
        assert f" {town}\n" not in done.stderr.replace(", ", "\n ")


def test_an_empty_database_is_not_passed_off_as_a_full_one(newest: Server) -> None:
    assert "Database: 0, empty\n" in tt("--dry-run", url=newest.url).stderr


def test_a_pipe_gets_all_keys_and_a_terminal_twenty_of_each_family(large: Server) -> None:
    piped = tt("--dry-run", url=large.url).stdout
    assert piped.count(" → ") == 301
    shown = sent_to_a_terminal("--dry-run", variables=where(large))
    assert shown.count(" → ") == 6 * 20 + 1
    assert shown.count("   … and 30 more (--limit 0 shows all)\n") == 6
    assert "Total: 301 key(s) would be migrated" in shown


@pytest.mark.parametrize(("limit", "listed"), [(0, 301), (1, 7), (49, 295), (50, 301)])
def test_limit_is_of_each_family_wherever_the_preview_goes(
    large: Server, limit: int, listed: int
) -> None:
    done = tt("--dry-run", "--limit", str(limit), url=large.url)
    assert done.stdout.count(" → ") == listed
    more = 50 - limit
    assert done.stdout.count(f"… and {more} more") == (6 if 0 < limit < 50 else 0)
    found = json.loads(tt("--dry-run", "--json", "--limit", str(limit), url=large.url).stdout)
    assert len(found["moves"]) == 301


def test_large_numbers_of_further_keys_have_separators(newest: Server) -> None:
    newest.client().mset({f"tt:task:{n}": 1 for n in range(1234)})
    done = tt("--dry-run", "--limit", "1", url=newest.url)
    assert "   … and 1,233 more (--limit 0 shows all)\n" in done.stdout
    done = tt("--dry-run", "--limit", "1", url=newest.url, PYTHONIOENCODING="ascii")
    assert "   ... and 1,233 more" in done.stdout


def test_conflicts_failures_and_ambiguous_keys_are_never_cut(large: Server) -> None:
    redis = large.client()
    redis.mset({f"tt:my-project:{family}:{n:02}": 2 for family in FAMILIES for n in range(30)})
    redis.mset({f"tt:{family}:{name}": 3 for family in FAMILIES for name in ("backlog", "events")})
    done = tt("--dry-run", "--limit", "1", url=large.url)
    assert done.stdout.count("(destination exists)") == 180
    assert done.stdout.count("never touched)") == 12
    redis.mset({f"tt:my-project:agent:{n}": "no JSON" for n in range(60)})
    done = tt("--hash", "--dry-run", "--limit", "1", url=large.url)
    assert done.stdout.count("JSON") >= 60


def test_a_long_preview_ends_with_all_that_one_signs_off(newest: Server) -> None:
    redis = newest.client()
    for family in FAMILIES:
        key = {"agent": '{"id":"%s","name":"n"}', "task": '{"id":"%s"}'}.get(family, "%s")
        redis.mset({f"tt:{family}:{n}": key.replace("%s", str(n)) for n in range(100)})
    redis.rpush("tt:backlog", "1")
    shown = sent_to_a_terminal("--upgrade", "--dry-run", variables=where(newest))
    rows = sum(max(1, -(-len(line) // 80)) for line in shown.partition("Summary")[2].splitlines())
    assert rows < 24
    end = shown.partition("   Summary: ")[2]
    assert end.startswith(f"town my-project, server {newest.url}\n")
    assert "   Keys to migrate:\n   agent    100\n" in end
    assert "   Records to convert:\n   agent    100\n   task     100\n" in end
    assert "Total: 601 key(s) would be migrated, 200 records would be converted" in end
    assert "Run 'tt migrate --upgrade' (without --dry-run)" in end


def test_twenty_keys_have_no_summary_and_one_more_has(newest: Server) -> None:
    newest.client().mset({f"tt:task:{n}": 1 for n in range(20)})
    assert "Summary" not in tt("--dry-run", url=newest.url).stdout
    newest.client().set("tt:task:20", 1)
    assert "Summary" in tt("--dry-run", url=newest.url).stdout


def test_hints_repeat_the_options_that_were_given(newest: Server, tmp_path: Path) -> None:
    redis = newest.client()
    redis.mset({"tt:agent:1": 1, "tt:inbox:1": 1, "tt:prod:inbox:1": 2})
    given = ["--town-name", "prod", "--redis-url", newest.url]
    done = tt_in_process("--dry-run", *given, "--nice", "2", "--max-pause", "7")
    options = f"--town-name prod --redis-url {newest.url} --max-pause 7 --nice 2"
    assert f"Run 'tt migrate {options}' (without --dry-run)" in done.stdout
    assert f"run 'tt migrate {options} --on-conflict merge' (with --dry-run" in done.stdout
    done = tt_in_process("--check", *given)
    assert f"run 'tt migrate {' '.join(given)} --upgrade'" in done.stdout
    (tmp_path / "tinytown.toml").write_text('name = "prod"\n')
    done = tt_in_process("-t", str(tmp_path), "--dry-run", TT_MIGRATE_REDIS_URL=newest.url)
    assert f"Run 'tt migrate -t {tmp_path}' (without" in done.stdout
    record = tmp_path / "record.jsonl"
    done = tt_in_process("--force", "--record", str(record), *given)
    again = f"tt migrate {' '.join(given)} --record {record}"
    assert f"'{again} --hash'" in done.stdout
    assert f"'{again} --on-conflict merge'" in done.stdout


def test_a_hint_hides_the_password_and_quotes_what_a_shell_would_change(newest: Server) -> None:
    redis = newest.client()
    redis.execute_command("ACL", "SETUSER", "some", "on", ">s3cr3t", "~*", "+@all")
    redis.set("tt:agent:1", 1)
    url = newest.url.replace("//", "//some:s3cr3t@")
    done = tt_in_process("--dry-run", "--redis-url", url, "--town-name", "a b")
    assert "s3cr3t" not in done.stdout + done.stderr
    shown = url.replace("s3cr3t", "***")
    assert f"""Run 'tt migrate --town-name "a b" --redis-url "{shown}"' (""" in done.stdout
    done = tt_in_process("--dry-run", "--town-name", "$(x)", TT_MIGRATE_REDIS_URL=newest.url)
    assert "--town-name '$(x)'" in done.stdout


@pytest.mark.parametrize("mode", ["--dry-run", "--force"])
def test_merge_is_named_only_where_it_can_help(newest: Server, mode: str) -> None:
    redis = newest.client()
    hint = "--on-conflict merge"
    redis.mset({"tt:agent:1": 1, "tt:my-project:agent:1": 2})
    assert hint not in tt(mode, url=newest.url).stdout
    redis.mset({"tt:stop:1": 1, "tt:my-project:stop:1": 2})
    assert hint in tt(mode, url=newest.url).stdout
    assert hint in tt("--upgrade", mode, url=newest.url).stdout
    assert "can be merged" not in tt(mode, "--reverse", url=newest.url).stdout
    redis.mset({"tt:stop:1": 1, "tt:my-project:stop:1": 2})
    redis.delete("tt:my-project:stop:1")
    redis.rpush("tt:my-project:stop:1", "list")
    assert "can be merged" not in tt(mode, "--on-conflict", "merge", url=newest.url).stdout


@pytest.mark.parametrize("options", [("--force",), ("--force", "--upgrade"), ("-y", "-q")])
def test_force_says_that_other_towns_keys_went_to_this_one(
    server: Server, options: tuple[str, ...]
) -> None:
    redis = server.client()
    redis.mset({"tt:inbox:1": 1, "tt:web:inbox:1": 1, "tt:my-project2:stop:1": 1})
    done = tt(*options, url=server.url)
    assert done.stderr.splitlines() == [
        "Other towns in this database: my-project2, web",
        "Old keys do not name their town: all of them went to my-project.",
    ]
    assert tt(*options, url=server.url).stderr == "", "nothing moved"
    redis.set("tt:inbox:2", 1)
    done = tt(*options, "--json", url=server.url)
    assert json.loads(done.stdout)["towns"] == ["my-project2", "web"]
    assert "went to my-project" in done.stderr


def test_an_answered_prompt_does_not_repeat_the_other_towns(newest: Server) -> None:
    newest.client().mset({"tt:inbox:1": 1, "tt:web:inbox:1": 1})
    done = tt(url=newest.url, answer="y\n")
    assert "Other towns in this database: web" in done.stdout
    assert done.stderr == ""


def test_with_verbose_a_job_has_dated_lines(newest: Server) -> None:
    newest.client().set("tt:inbox:1", 1)
    done = tt("-v", "--force", url=newest.url)
    date = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"
    dated = [line for line in done.stderr.splitlines() if re.match(date, line)]
    assert [line.partition(" ")[2] for line in dated] == [
        "rename begins, mode migrate",
        "ended with exit status 0",
    ]
    assert done.stderr.splitlines()[-1] == dated[-1]
    assert not re.search(date, tt("--force", url=newest.url).stderr)
    assert not re.search(date, sent_to_a_terminal("-v", "--force", variables=where(newest)))
