"""The command's output and exit status, run as a process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.command import TT, assert_harmless, environment, ran, script, tt, tt_in_process
from tests.servers import Kind, Server, StartServer
from tests.tables import each
from tests.users import refusals, user_without
from tt_migrate import Migrator
from tt_migrate.terminal.cli import migrate

NOTHING_TO_DO = "✅ No migration needed - all keys already use town isolation format"

PREVIEW = """\
🔍 Migration Preview (dry run)
   Town: my-project

   Keys to migrate:
   tt:agent:abc123 → tt:my-project:agent:abc123
   tt:inbox:abc123 → tt:my-project:inbox:abc123
   tt:task:def456 → tt:my-project:task:def456

   Total: 3 key(s) would be migrated

   Run 'tt migrate' (without --dry-run) to perform migration.
"""


@pytest.fixture
def example(newest: Server) -> Server:
    """A server with the three keys from Tinytown's documentation."""
    newest.client().mset({"tt:task:def456": "t", "tt:inbox:abc123": "i", "tt:agent:abc123": "a"})
    return newest


def test_the_preview_of_the_example_is_this_text(server: Server) -> None:
    server.client().mset({"tt:task:def456": 1, "tt:inbox:abc123": 1, "tt:agent:abc123": 1})
    done = tt("--dry-run", url=server.url)
    assert (done.stdout, done.returncode) == (PREVIEW, 0)
    assert len(server.client().keys("tt:*:abc123")) == 2


def test_keys_are_listed_by_family_and_then_bytewise(newest: Server) -> None:
    keys = ["tt:agent:B", "tt:agent:a", "tt:agent:b", "tt:inbox:1", "tt:urgent:1", "tt:task:1"]
    keys += ["tt:activity:1", "tt:stop:1", "tt:backlog"]
    newest.client().mset(dict.fromkeys(reversed(keys), 1))
    lines = tt("--dry-run", url=newest.url).stdout.splitlines()
    assert [line.split()[0] for line in lines if "→" in line] == keys


def test_conflicts_and_ambiguous_keys_stand_after_the_total(example: Server) -> None:
    example.client().mset({"tt:my-project:task:def456": 1, "tt:task:backlog": 1})
    done = tt("--dry-run", url=example.url)
    listed, after = done.stdout.split("   Total: 2 key(s) would be migrated\n")
    assert "def456" not in listed
    assert "backlog" not in listed
    assert "tt:task:def456 → tt:my-project:task:def456 (destination exists)" in after
    assert "tt:task:backlog (may be the backlog of a town named 'task': never touched)" in after
    assert done.returncode == 0


def test_a_preview_with_nothing_but_conflicts_suggests_no_migration(newest: Server) -> None:
    newest.client().mset({"tt:agent:1": 1, "tt:my-project:agent:1": 1})
    done = tt("--dry-run", url=newest.url)
    assert "Total: 0 key(s) would be migrated" in done.stdout
    assert "(destination exists)" in done.stdout
    assert "to perform migration" not in done.stdout


@each("options", [(), ("--dry-run",), ("--check",), ("--force",)])
def test_nothing_to_do_is_said_with_the_town_in_every_mode(
    newest: Server, options: tuple[str, ...]
) -> None:
    done = tt(*options, url=newest.url)
    assert done.stdout.startswith(NOTHING_TO_DO)
    assert "my-project" in done.stdout
    assert done.returncode == 0
    assert done.stderr == "" or options == ("--dry-run",)


@pytest.mark.parametrize("options", [(), ("--dry-run",), ("--force",)])
def test_an_ambiguous_key_is_no_work_but_is_shown(newest: Server, options: tuple[str, ...]) -> None:
    newest.client().set("tt:stop:events", 1)
    done = tt(*options, url=newest.url)
    assert done.stdout.startswith(NOTHING_TO_DO)
    assert "tt:stop:events" in done.stdout
    assert done.returncode == 0


def test_a_key_cannot_write_to_the_terminal_or_break_a_line(newest: Server) -> None:
    for name in (b"\x1b[2J", b"a\nb", b"\xff", b"\xc2\x9b31m", "\u202e\u2028".encode(), b"c\\\r"):
        newest.client().set(b"tt:agent:" + name, 1)
    lines = tt("--dry-run", url=newest.url).stdout.splitlines()
    keys = [line.split(" →")[0].strip() for line in lines if "→" in line]
    assert keys == [
        "tt:agent:\\x1b[2J",
        "tt:agent:a\\nb",
        "tt:agent:c\\\\\\r",
        "tt:agent:\\u009b31m",
        "tt:agent:\\u202e\\u2028",
        "tt:agent:\\xff",
    ]


def test_a_migration_reports_families_total_time_and_the_counting_pass(example: Server) -> None:
    done = tt("--force", url=example.url)
    first, *rest = done.stdout.splitlines()
    assert first.startswith("⚠️ Migration complete, but Tinytown 0.7 or later cannot read 1 agent")
    assert "   agent    1" in rest
    assert "   task     1" in rest
    assert any(line.startswith("   Total: 3 keys migrated in 0.") for line in rest)
    assert "   No old keys are left." in rest
    assert (done.stderr, done.returncode) == ("", 0)
    assert example.client().get("tt:my-project:task:def456") == b"t"


def test_keys_left_behind_are_listed_and_the_first_line_is_no_success(example: Server) -> None:
    example.client().set("tt:my-project:inbox:abc123", "newer")
    done = tt("--force", url=example.url)
    assert done.stdout.startswith("⚠️ Migration incomplete: 1 old key is left\n")
    head, _, left = done.stdout.partition("Nothing was overwritten. Keys that were not migrated:\n")
    assert "Total: 2 keys migrated" in head
    listed, *hint = left.strip().split("\n\n")
    key, _ = listed.split("\n")
    assert key == "tt:inbox:abc123 → tt:my-project:inbox:abc123 (destination exists)"
    assert len(hint) == 1
    assert hint[0].startswith("   ⚠️ Tinytown 0.7 or later cannot read 1 agent and 1 task")
    assert done.returncode == 1
    assert example.client().get("tt:my-project:inbox:abc123") == b"newer"


def test_without_anything_to_move_there_is_no_prompt_but_status_1(newest: Server) -> None:
    newest.client().mset({"tt:agent:1": 1, "tt:my-project:agent:1": 2})
    done = tt(url=newest.url)
    assert "Continue?" not in done.stdout
    assert done.stdout.startswith("⚠️ Migration incomplete")
    assert "(destination exists)" in done.stdout
    assert done.returncode == 1


@pytest.mark.every_kind
def test_a_key_that_may_not_be_renamed_is_listed_with_the_servers_reason(server: Server) -> None:
    redis = server.client()
    redis.mset({"tt:agent:yes": 1, "tt:agent:no": 2})
    allowed = ("~tt:agent:yes", "~tt:my-project:*")
    redis.execute_command("ACL", "SETUSER", "some", "on", ">secret", "+@all", *allowed)
    done = tt("--force", url=server.url.replace("//", "//some:secret@"))
    assert "Total: 1 key migrated" in done.stdout
    assert "tt:agent:no → tt:my-project:agent:no (ERR" in done.stdout
    assert done.returncode == 1


def test_the_prompt_shows_town_server_families_conflicts_and_other_towns(example: Server) -> None:
    example.client().mset(
        {"tt:my-project:task:def456": 1, "tt:alpha:agent:1": 1, "tt:b:c:backlog": 1}
    )
    redis = example.client()
    redis.execute_command("ACL", "SETUSER", "ops", "on", ">s3cr3t", "~*", "+@all")
    done = tt(url=example.url.replace("//", "//ops:s3cr3t@"), answer="n\n")
    question = done.stdout
    assert "Town: my-project" in question
    assert f"Server: redis://ops:***@127.0.0.1:{example.port}/0" in question
    assert "   agent    1\n   inbox    1\n   task     1\n" in question
    assert "Conflicts: 1" in question
    assert "Other towns in this database: alpha, b:c" in question
    assert question.rstrip().endswith("Continue? [y/N]")
    assert "s3cr3t" not in done.stdout + done.stderr


@pytest.mark.parametrize("answer", ["y\n", "Y\n", "yes\n", "YES\n", " yes \n", "y", "y\n" * 1000])
def test_yes_goes_on(example: Server, answer: str) -> None:
    done = tt(url=example.url, answer=answer)
    assert "⚠️ Migration complete, but" in done.stdout
    assert done.returncode == 0
    assert example.client().exists("tt:my-project:agent:abc123") == 1


@pytest.mark.parametrize("answer", ["n\n", "\n", "no\n", "yess\n", "ja\n", "", "\x00\n"])
def test_any_other_answer_or_none_changes_nothing(example: Server, answer: str) -> None:
    done = tt(url=example.url, answer=answer)
    assert "Nothing was changed" in done.stderr
    assert "--force" in done.stderr
    assert done.returncode == 4
    assert example.client().exists("tt:agent:abc123") == 1


def test_an_answer_that_is_no_text_changes_nothing(example: Server) -> None:
    command = [*TT, "--town-name", "t", "--redis-url", example.url]
    done = subprocess.run(command, input=b"\xff\xfe\n", capture_output=True, check=False)
    assert done.returncode == 4


def test_a_closed_standard_input_changes_nothing(example: Server) -> None:
    command = ["sh", "-c", '"$@" <&-', "sh", *TT, "--town-name", "t", "--redis-url", example.url]
    done = subprocess.run(command, capture_output=True, env=environment(), check=False)
    assert (done.returncode, b"Traceback" in done.stderr) == (4, False)


@pytest.mark.parametrize("keys", [0, 2])
def test_check_prints_one_line_and_its_status_says_whether_old_keys_exist(
    newest: Server, keys: int
) -> None:
    redis = newest.client()
    redis.mset({"tt:task:backlog": 1, **{f"tt:agent:{n}": n for n in range(keys)}})
    before = sorted(redis.keys())
    done = tt("--check", url=newest.url)
    assert len(done.stdout.splitlines()) == 1
    assert ("2 old keys" in done.stdout) == bool(keys)
    assert done.returncode == (1 if keys else 0)
    assert sorted(redis.keys()) == before


def test_quiet_prints_nothing_but_problems(example: Server) -> None:
    assert tt("--dry-run", "-q", url=example.url).stdout == ""
    done = tt("--force", "--quiet", url=example.url)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    example.client().delete("tt:my-project:agent:abc123", "tt:my-project:task:def456")
    assert tt("--check", "-q", url=example.url).stdout == ""
    assert tt("-q", url=example.url).stdout == ""
    example.client().set("tt:inbox:abc123", "again")
    done = tt("--force", "-q", url=example.url)
    assert "tt:inbox:abc123" in done.stdout
    assert done.returncode == 1
    assert "old key" in tt("--check", "-q", url=example.url).stdout


def test_verbose_says_where_settings_come_from_and_what_the_run_cost(example: Server) -> None:
    done = tt("-v", "--force", REDIS_URL=example.url)
    assert "town: my-project (from --town-name)" in done.stderr
    assert f"redis: {example.url} (from REDIS_URL)" in done.stderr
    assert "server: " in done.stderr
    assert " batch" in done.stderr


def test_ascii_output_has_ascii_symbols(newest: Server) -> None:
    newest.client().set("tt:inbox:é", 1)
    ascii_only: dict[str, Any] = {"town": "日本", "url": newest.url, "PYTHONIOENCODING": "ascii"}
    as_a_process = tt("--dry-run", program=[*TT], **ascii_only)
    for options in (("--dry-run",), ("--force",), ("--check",)):
        done = tt(*options, **ascii_only)
        assert done.returncode == 0
        assert (done.stdout + done.stderr).isascii()
        if options == ("--dry-run",):
            assert (done.stdout, done.stderr) == (as_a_process.stdout, as_a_process.stderr)
    done = tt("--dry-run", url=newest.url, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0


def redirected(
    *options: str, to: Mapping[int, str], cold: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `tt migrate` with streams that are closed, or that nobody takes anything from."""
    reading, writing = os.pipe()
    os.close(reading)
    with Path("/dev/full").open("w") as full, open(writing, "w") as no_reader:  # noqa: PTH123
        places = {"full disk": full.fileno(), "no reader": no_reader.fileno()}
        streams = [places.get(to.get(fd, "")) for fd in range(3)]
        closed = [fd for fd, where in to.items() if where == "closed"]
        return ran(*options, streams=streams, closed=closed, cold=cold)


@pytest.mark.parametrize("options", ["--dry-run", "--json --dry-run", "--force", "--check"])
def test_a_reader_who_leaves_is_no_error(newest: Server, options: str) -> None:
    redis = newest.client()
    redis.mset({f"tt:agent:{n}": n for n in range(5000)})
    where = ("--town-name", "t", "--redis-url", newest.url)
    done = redirected(*options.split(), *where, to={1: "no reader"})
    assert done.returncode == (1 if options == "--check" else 0)
    assert len(done.stderr.splitlines()) == (3 if options == "--dry-run" else 0)
    if options == "--force":
        assert len(redis.keys("tt:t:agent:*")) == 5000


STREAMS: dict[str, tuple[dict[int, str], int]] = {
    "full disk": ({1: "full disk"}, 2),
    "closed": ({1: "closed"}, 2),
    "no reader": ({1: "no reader"}, 0),
    "full disk for errors": ({2: "full disk"}, 0),
    "errors closed": ({2: "closed"}, 0),
    "all closed": ({1: "closed", 2: "closed"}, 2),
}


@pytest.mark.parametrize(
    ("options", "where"),
    [
        # Click writes the help and the version, in one way; both reports go another way.
        *(("--help", where) for where in STREAMS),
        ("--version", "full disk"),
        *(("--json --dry-run -v", where) for where in STREAMS if where != "no reader"),
        ("--force", "full disk"),
        ("--force", "closed"),
    ],
)
def test_streams_that_cannot_be_written_give_a_documented_status(
    example: Server, options: str, where: str
) -> None:
    to, status = STREAMS[where]
    url = ("--town-name", "t", "--redis-url", example.url)
    # A new Python finds the streams as it starts.
    done = redirected(*options.split(), *url, to=to, cold=options == "--help")
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if where in ("full disk", "closed"):
        failed = "Error: cannot write the report: "
        failed += "No space left on device" if where == "full disk" else ""
        assert any(line.startswith(failed) for line in done.stderr.splitlines())


@pytest.mark.parametrize(
    ("options", "where"),
    [
        *(("--nonsense", where) for where in STREAMS if where != "no reader"),
        *(("--json --nonsense", where) for where in ("full disk", "closed", "no reader")),
    ],
)
def test_wrong_usage_is_status_2_wherever_it_is_said(options: str, where: str) -> None:
    done = redirected(*options.split(), to=STREAMS[where][0])
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("source", "options"),
    [("cat /dev/zero", ()), ("yes | tr -d '\\n'", ("--json",)), ("yes yes | tr '\\n' ' '", ())],
)
def test_an_answer_without_an_end_is_no_yes(
    example: Server, source: str, options: tuple[str, ...]
) -> None:
    where = ("--town-name", "t", "--redis-url", example.url)
    with subprocess.Popen(["sh", "-c", source], stdout=subprocess.PIPE) as answers:
        assert answers.stdout
        streams = (answers.stdout.fileno(), None, None)
        done = ran(*options, *where, streams=streams, limits=[("RLIMIT_AS", 4_096_000_000)])
    assert done.returncode == 4
    assert example.client().exists("tt:agent:abc123") == 1


def test_a_prompt_that_nobody_can_see_is_not_answered(example: Server) -> None:
    where = ("--json", "--town-name", "t", "--redis-url", example.url)
    with Path("/dev/full").open("w") as full:
        done = ran(*where, answer="y\n", streams=(None, None, full.fileno()))
    assert done.returncode == 4
    assert "cancelled" in json.loads(done.stdout)["error"]
    assert example.client().exists("tt:agent:abc123") == 1


@pytest.mark.parametrize(
    "ratio", ["nan", "-nan", "inf", "-inf", "1e400", "-1e400", "-0", "-0.0", "-1", "1001", ""]
)
def test_nice_takes_a_number_from_0_to_1000(example: Server, ratio: str) -> None:
    options = ("--nice", ratio, "--redis-url", example.url, "--town-name", "t", "--force")
    done = tt_in_process(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--nice" in done.stderr
    assert example.client().exists("tt:agent:abc123") == 1


@each("number", ["9" * 5000, "-1", "1e3", "5.5", "nan", "0x5", ""])
def test_max_pause_takes_a_whole_number(number: str) -> None:
    done = tt_in_process("--max-pause", number)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--max-pause" in done.stderr


@each(
    ("arguments", "is_json"),
    [
        (("--json", "--nonsense"), True),
        (("--nonsense", "--json", "--json"), True),
        (("--json", "--max-pause"), True),
        (("--town-name", "--json", "--nonsense"), False),
        (("--town-name=--json", "--nonsense"), False),
        (("--nonsense", "--", "--json"), False),
        (("--jso",), False),
    ],
)
def test_json_is_what_json_was_asked_for(arguments: tuple[str, ...], is_json: bool) -> None:
    done = tt_in_process(*arguments)
    assert done.returncode == 2
    assert done.stdout.startswith("{") == is_json
    assert ("Error: " in done.stderr) != is_json


@pytest.mark.parametrize("arguments", [("--json", "migrate"), ("nothing",), ("-v",)])
def test_tt_without_what_it_is_to_do_is_wrong_usage(arguments: tuple[str, ...]) -> None:
    done = tt(*arguments, program=TT[:-1], town=None)
    assert done.returncode == 2
    assert "error" in done.stdout + done.stderr.lower()
    assert not done.stdout or json.loads(done.stdout)["error"]


def test_a_fault_of_our_own_is_one_line_one_document_and_never_status_1(
    example: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(migrator: object) -> None:
        raise ZeroDivisionError("secret\x1b[2J")

    monkeypatch.setattr("tt_migrate.migrator.Migrator.migrate", fail)
    options = (
        "--force",
        "--town-name",
        "t",
        "--redis-url",
        example.url.replace("//", "//:secret@"),
    )
    for more in ((), ("--json",)):
        done = tt_in_process(*options, *more)
        assert done.returncode == 3
        assert_harmless(done)
        said = json.loads(done.stdout)["error"] if more else done.stderr
        assert "internal: ZeroDivisionError ***\\x1b[2J (test_cli.py:" in said


@pytest.mark.parametrize(
    "program",
    [
        TT,
        script("tt-migrate"),
        [sys.executable, "-m", "tt_migrate"],
        [sys.executable, "-m", "tt_migrate", "migrate"],
    ],
)
def test_every_name_of_the_command_does_the_same(example: Server, program: list[str]) -> None:
    assert tt("--dry-run", url=example.url, program=program).stdout == PREVIEW


@pytest.mark.parametrize("before", [True, False])
def test_the_town_directory_is_given_before_or_after_migrate(
    example: Server, tmp_path: Path, before: bool
) -> None:
    (tmp_path / "tinytown.toml").write_text(
        f'name = "my-project"\n[redis]\nuse_socket = false\nport = {example.port}\n'
    )
    where = ["-t", str(tmp_path)]
    order = [*where, "migrate"] if before else ["migrate", *where]
    program = [*TT[:-1], *order]
    done = tt("--dry-run", program=program, town=None)
    assert done.stdout.replace(f"tt migrate -t {tmp_path}'", "tt migrate'") == PREVIEW


def test_the_town_in_the_working_directory_is_the_default(example: Server, tmp_path: Path) -> None:
    (tmp_path / "tinytown.toml").write_text(
        f'name = "my-project"\n[redis]\nsocket_path = "{example.socket}"\n'
    )
    assert tt("--dry-run", town=None, cwd=tmp_path).stdout == PREVIEW


def test_version_and_help_need_no_server() -> None:
    assert tt("--version", town=None).stdout == "tt-migrate 0.1.0\n"
    text = tt("--help", town=None).stdout
    for option in ("--dry-run", "--force", "--check", "--town-name", "--redis-url", "--max-pause"):
        assert option in text
    assert "--json" in text
    assert "--quiet" in text


@each(
    "options",
    [
        ("--nonsense",),
        ("--max-pause", "0"),
        ("--max-pause", "soon"),
        ("--dry-run", "--check"),
        ("--town-name", ""),
        ("--redis-url", " "),
        ("--redis-url", "http://localhost"),
        ("somewhere",),
    ],
)
def test_wrong_usage_is_status_2_on_stderr(options: tuple[str, ...]) -> None:
    done = tt(*options, town=None)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr


def test_a_missing_town_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    done = tt(town=None, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "tinytown.toml" in done.stderr
    assert str(tmp_path) in done.stderr


def test_a_server_that_is_not_there_is_status_3(own_server: StartServer) -> None:
    server = own_server()
    server.kill()
    for options in ((), ("--dry-run",), ("--check",), ("--force",)):
        done = tt(*options, url=server.url)
        assert done.returncode == 3
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert server.url in done.stderr


def test_a_wrong_password_or_none_is_status_3_and_not_shown(own_server: StartServer) -> None:
    server = own_server("--requirepass", "correct-horse")
    wrong = tt("-v", url=server.url.replace("//", "//:wrong-horse@"))
    none = tt("-v", url=server.url)
    assert (wrong.returncode, none.returncode) == (3, 3)
    assert "password" in wrong.stderr
    assert "password" in none.stderr
    right = tt("-v", "--dry-run", url=server.url.replace("//", "//:correct-horse@"))
    assert right.returncode == 0
    for done in (wrong, none, right):
        assert "horse" not in done.stdout + done.stderr


@pytest.mark.every_kind
def test_a_missing_permission_is_status_3_and_nothing_changes(server: Server) -> None:
    redis = server.client()
    redis.set("tt:agent:1", 1)
    redis.execute_command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", "-@write")
    url = server.url.replace("//", "//reader:secret@")
    assert tt("--dry-run", url=url).returncode == 0
    assert tt("--check", url=url).returncode == 1
    done = tt("--force", url=url)
    assert done.returncode == 3
    assert "RENAMENX" in done.stderr
    assert redis.keys() == [b"tt:agent:1"]


def test_a_replica_is_status_3_before_any_prompt(newest: Server) -> None:
    redis = newest.client()
    redis.set("tt:agent:1", 1)
    redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    done = tt(url=newest.url, answer="y\n")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "replica" in done.stderr
    assert tt("--dry-run", url=newest.url).returncode == 0


def test_a_server_that_is_loading_is_status_3(newest: Server, own_server: StartServer) -> None:
    redis = newest.client()
    redis.mset({f"k{n}": "x" * 10 for n in range(3000)})
    redis.save()
    loading = own_server(
        "--dir",
        str(newest.directory),
        "--key-load-delay",
        "2000",
        "--loading-process-events-interval-bytes",
        "1024",
        loading_is_ready=True,
    )
    for options in (("--force",), ("--dry-run",)):
        done = tt(*options, url=loading.url)
        assert done.returncode == 3
        assert "loading" in done.stderr


def test_a_cluster_node_is_status_3(own_server: StartServer) -> None:
    server = own_server("--cluster-enabled", "yes")
    done = tt("--force", url=server.url)
    assert (done.returncode, "cluster" in done.stderr) == (3, True)


@pytest.mark.every_kind
@pytest.mark.parametrize("command", ["HELLO", "SCAN", "EVALSHA", "RENAMENX"])
def test_a_command_that_the_server_does_not_know_is_named_as_the_cause(
    kind: Kind, own_server: StartServer, command: str
) -> None:
    """HELLO is the first command of a connection, and its error has its own hint."""
    server = own_server("--rename-command", command, "", kind=kind)
    done = tt_in_process("--force", "--town-name", "t", "--redis-url", server.url)
    assert done.returncode == 3
    assert_harmless(done)
    assert "rename-command" in done.stderr or "HELLO" in done.stderr


@pytest.mark.parametrize(
    ("options", "unbuffered"), [(("--dry-run", "--json"), "1"), (("--dry-run",), "")]
)
def test_a_report_that_finds_no_room_is_no_success_however_python_buffers(
    newest: Server, tmp_path: Path, options: tuple[str, ...], unbuffered: str
) -> None:
    newest.client().mset({f"tt:agent:{n}": n for n in range(300)})

    where = ("--town-name", "town", "--redis-url", newest.url)
    with (tmp_path / "report").open("w") as report:
        done = ran(
            *(*options, *where),
            streams=(None, report.fileno(), None),
            variables={"PYTHONUNBUFFERED": unbuffered},
            limits=[("RLIMIT_FSIZE", 10_000)],
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: cannot write the report: ")


RECORD = '{"id": "1"}'


@each(
    ("keys", "found"),
    [
        ({"tt:inbox:1": 1}, "1 old key needs migration"),
        ({"mt:inbox:1": 1, "tt:stop:2": 1}, "2 old keys need migration"),
        ({"tt:town:task:1": RECORD}, "1 record needs conversion to a hash"),
        (
            {"tt:agent:1": RECORD, "tt:town:task:1": RECORD},
            "1 old key needs migration, 2 records",
        ),
    ],
)
@each("quiet", [(), ("--quiet",)])
def test_check_finds_all_that_a_current_tinytown_cannot_read(
    server: Server, keys: dict[str, object], found: str, quiet: tuple[str, ...]
) -> None:
    server.client().mset(keys)  # type: ignore[arg-type]
    done = tt("--check", *quiet, url=server.url, town="town")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(f"⚠️ {found}")
    assert done.stdout.endswith(": run 'tt migrate --upgrade' (town: town)\n")
    assert tt("--upgrade", "--force", url=server.url, town="town").returncode == 0
    clear = tt("--check", *quiet, url=server.url, town="town")
    assert (clear.returncode, clear.stderr) == (0, "")


@pytest.mark.every_kind
def test_check_without_permission_to_ask_for_types_looks_at_names(server: Server) -> None:
    admin = server.client()
    admin.set("tt:town:task:1", RECORD)
    user_without(server, "type")
    url = server.url.replace("//", "//less:secret@")
    assert tt("--check", url=url, town="town").returncode == 0
    admin.set("mt:inbox:1", 1)
    admin.execute_command("ACL", "LOG", "RESET")
    done = tt("--check", url=url, town="town")
    assert (done.returncode, done.stderr) == (1, "")
    assert "1 old key needs migration" in done.stdout
    assert max(refusals(server).values(), default=0) <= 1
    assert tt("--upgrade", "--check", url=url, town="town").returncode == 3


@each(
    ("variables", "same"),
    [
        ({"TT_MIGRATE_DRY_RUN": "1"}, ("--dry-run",)),
        ({}, ("-n",)),
        ({"TT_MIGRATE_FORCE": "true"}, ("--force",)),
        ({}, ("-y",)),
        ({"TT_MIGRATE_CHECK": "yes", "TT_MIGRATE_MAX_PAUSE": "20"}, ("--check",)),
        ({"TT_MIGRATE_HASH": "on", "TT_MIGRATE_DRY_RUN": "1"}, ("--hash", "--dry-run")),
    ],
)
def test_short_options_and_variables_do_what_the_long_options_do(
    newest: Server, variables: dict[str, str], same: tuple[str, ...]
) -> None:
    redis = newest.client()
    given = () if variables else same
    long = tuple({"-n": "--dry-run", "-y": "--force"}.get(name, name) for name in same)
    said = []
    for options, environ in ((given, variables), (long, {})):
        redis.flushall()
        redis.mset({"tt:inbox:1": 1, "tt:town:task:1": RECORD})
        done = tt(*options, url=newest.url, town="town", **environ)  # type: ignore[arg-type]
        said.append((done.returncode, re.sub(r"\d\.\d\d s", "", done.stdout), done.stderr))
    assert said[0] == said[1]


def test_every_option_can_come_from_a_variable_which_help_shows() -> None:
    shown = tt("-h", town=None).stdout
    for parameter in migrate.params:
        if parameter.param_type_name == "option" and parameter.name not in ("version", "help"):
            [long] = [name for name in parameter.opts if name.startswith("--")]
            variable = f"TT_MIGRATE_{long[2:].replace('-', '_').upper()}"
            assert parameter.envvar == variable
            assert variable in " ".join(shown.split())
    assert "Examples:" in shown


def test_a_wrong_variable_is_named_and_json_of_a_variable_gives_a_document() -> None:
    done = tt(town="t", TT_MIGRATE_NICE="nan")
    assert (done.returncode, done.stdout) == (2, "")
    assert "TT_MIGRATE_NICE" in done.stderr
    for true in ("1", "TRUE"):
        done = tt(town="t", TT_MIGRATE_NICE="nan", TT_MIGRATE_JSON=true)
        assert "TT_MIGRATE_NICE" in json.loads(done.stdout)["error"]
    assert tt(town="t", TT_MIGRATE_JSON="perhaps").stdout == ""


def test_what_stands_before_the_command_overrides_a_variable(tmp_path: Path) -> None:
    before = ("-t", str(tmp_path / "given"))
    variables = {"TT_MIGRATE_TOWN": str(tmp_path / "other")}
    done = ran(*before, "migrate", program=script("tt"), variables=variables)
    assert f"no tinytown.toml in {tmp_path}/given" in done.stderr


def test_the_command_is_named_once() -> None:
    done = tt("migrate", town=None)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Got unexpected extra argument (migrate)" in done.stderr


def test_a_migration_that_leaves_json_strings_says_so_first(server: Server) -> None:
    redis = server.client()
    redis.mset({"tt:agent:1": RECORD, "tt:agent:2": RECORD.replace("1", "2")})
    redis.set("tt:town:task:1", RECORD)
    warning = "Tinytown 0.7 or later cannot read 2 agents and 1 task yet: run 'tt migrate --hash'"
    done = tt("--force", url=server.url, town="town")
    assert done.returncode == 0
    assert done.stdout.startswith(f"⚠️ Migration complete, but {warning}\n")
    assert done.stdout.count("cannot read") == 1
    again = tt("--force", url=server.url, town="town")
    assert again.returncode == 0
    first, *_, last = again.stdout.splitlines()
    assert first == "✅ No migration needed - all keys already use town isolation format"
    assert last == f"   ⚠️ {warning}"
    report = json.loads(tt("--force", "--json", url=server.url, town="town").stdout)
    assert (report["unreadable"], report["strings"]) == (3, 3)
    assert tt("--hash", "--force", url=server.url, town="town").returncode == 0
    clear = tt("--force", url=server.url, town="town").stdout
    assert "cannot read" not in clear
    result = Migrator(redis, "town").migrate()
    assert (result.complete, result.unreadable) == (True, {"agent": 0, "task": 0})
