"""Runs the commands and code in the documents, and compares what they say with the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from demo import old_town, redis_cli
from tests.clusters import Cluster, fill
from tests.command import chdir, environment, script, tt, tt_in_process
from tests.servers import Server, StartServer
from tests.test_json import FIELDS
from tests.waiting import wait_until
from tt_migrate.terminal.cli import migrate
from tt_migrate.terminal.errors import _MEANINGS

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
)
README = (ROOT / "README.md").read_text("utf-8")
REFERENCE = (ROOT / "docs/reference.md").read_text("utf-8")
_ROLL_BACK = "the roll-back's own test runs it"
NOT_RUN = {
    "make ": "each target has tests of its own, or takes long",
    "pipx ": "needs pipx",
    "uv ": "needs uv",
    "python3 -m venv ": "test_packaging.py installs it",
    "docker ": "needs a Docker engine; test_compose.py checks the file",
    "TOWN=/srv/my-project docker ": "needs a Docker engine; test_compose.py checks the file",
    "kubectl ": "needs a cluster",
    "sudo ": "needs systemd, or writes outside the town",
    "git clone ": "names no repository",
    "eval ": "test_completion.py runs it",
    "autoload ": "needs zsh",
    "_TT_COMPLETE=fish_source ": "needs fish; test_completion.py runs the first half",
    "_TT_MIGRATE_COMPLETE=fish_source ": "needs fish; test_completion.py runs the first half",
    "cp backup.rdb ": _ROLL_BACK,
    "redis-cli -s .tt/redis.sock SHUTDOWN": _ROLL_BACK,
    "redis-cli -s .tt/redis.sock CONFIG SET": _ROLL_BACK,
}
"""Commands that are not run one by one, by their beginning, and why."""
SYNOPSES = ("tt [", "tt-migrate [")
_SHELL = {*"|&;<>$`~*#\\"}
"""Characters that mean something to a shell, but for quotes."""
FIGURES = ("docs/architecture.md",)
"""Documents whose indented blocks are drawings."""


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def section_of(document: str, title: str) -> str:
    """The text below a title, up to the next title of the same rank or a higher one."""
    rank = len(title) - len(title.lstrip("#"))
    _, _, rest = text_of(document).partition(f"\n{title}\n")
    assert rest, f"{document}: {title}"
    return re.split(rf"(?m)^#{{1,{rank}}} ", rest)[0]


def blocks(text: str) -> Iterator[list[str]]:
    """The indented blocks of a text, without their indentation."""
    text = re.sub(r"(?ms)^```.*?^```$", "", text)
    for block in re.findall(r"(?m)(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+", text):
        width = len(block) - len(block.lstrip(" "))
        yield [line[width:] for line in block.splitlines()]


def commands(text: str) -> list[str]:
    found = []
    for first, *rest in blocks(text):
        if first.startswith("$ "):
            found.append(first[2:])
        elif not first.startswith(SYNOPSES):
            found += [first, *rest]
    return [command for command in found if command]


COMMANDS = sorted(
    {
        (document, line)
        for document in DOCUMENTS
        if document not in FIGURES
        for line in commands(text_of(document))
    }
)
RUN = [(document, line) for document, line in COMMANDS if not line.startswith(tuple(NOT_RUN))]


def settled(server: Server, folder: Path) -> Path:
    """Put a town on a server. Returns its directory; beside it, `bin` has the programs."""
    old_town.build(server.client())
    old_town.settle(folder / "town", server.socket)
    programs = folder / "bin"
    programs.mkdir()
    for name in ("tt", "tt-migrate"):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(script(name))} "$@"\n')
        (programs / name).chmod(0o755)
    redis_cli.put(programs, server.kind.cli)
    return folder / "town"


@pytest.fixture
def town(newest: Server, tmp_path: Path) -> Path:
    """The directory of a town whose server runs, with `tt` and `redis-cli` on the PATH."""
    return settled(newest, tmp_path)


def run(
    town: Path, command: str, answer: str = "y\n", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of a document in the town: one of ours in this process, which is quicker."""
    if not _SHELL.intersection(command):
        name, *args = shlex.split(command)
        if name == "tt-migrate" or [name, *args[:1]] == ["tt", "migrate"]:
            args = args[1:] if name == "tt" else args
            with chdir(town):
                return tt_in_process(*args, answer=answer.encode(), name=name, **variables)
    path = os.pathsep.join([str(town.parent / "bin"), os.environ["PATH"]])
    return subprocess.run(
        command,
        shell=True,
        cwd=town,
        env=environment(PATH=path, **variables),
        input=answer,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_there_are_commands_to_run() -> None:
    assert len(RUN) > 15
    assert {document for document, _ in RUN} >= {"README.md", "docs/operations.md"}


def test_every_command_that_is_not_run_is_there() -> None:
    for start in NOT_RUN:
        assert any(line.startswith(start) for _, line in COMMANDS), start


def test_no_command_is_hidden_in_a_fence() -> None:
    """Only indented blocks are run."""
    for document in DOCUMENTS:
        fences = re.findall(r"(?m)^\s*(?:```|~~~)(.*)$", text_of(document))
        assert set(fences[::2]) <= {"python", "ini", "yaml"}, document
        assert set(fences[1::2]) <= {""}, document


@pytest.mark.parametrize(("document", "command"), RUN)
def test_a_command_of_a_document_runs_as_printed(town: Path, document: str, command: str) -> None:
    program, *_ = command.split()
    if program == "0":  # a line of a crontab
        command = " ".join(command.split()[5:]).replace("/srv/my-project", str(town))
        command = command.replace("~/.local/share/tt-migrate/bin/", f"{town.parent}/bin/")
    done = run(town, command)
    finds = command.endswith("--check") and "--from-town" not in command
    assert done.returncode == (1 if finds else 0), done.stderr
    assert "Usage:" not in done.stderr


def contents(redis: Redis) -> dict[Any, Any]:
    keys: Any = redis.keys()
    return {key: (redis.dump(key), redis.ttl(key) > 0) for key in keys}


@pytest.mark.parametrize("appendonly", ["no", "yes"])
def test_the_maintenance_window_and_its_roll_back_go_step_by_step(
    own_server: StartServer, tmp_path: Path, appendonly: str
) -> None:
    (tmp_path / "town").mkdir()
    where = ("--dir", str(tmp_path / "town"))
    server = own_server(*where, "--appendonly", appendonly)
    town, before = settled(server, tmp_path), contents(server.client())
    window = section_of("docs/operations.md", "## A maintenance window")
    forward, _, back = window.partition("### Roll back")
    for command in commands(forward):
        done = run(town, command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert contents(server.client()).keys().isdisjoint(before)

    _, look, downgrade, *steps = commands(back)  # the first is for a plain migration
    for command in (look, downgrade):
        assert run(town, command).returncode == 0, command
    for command in steps:
        if appendonly == "no" and command.endswith("appendonly yes"):
            continue
        done = run(town, command)
        assert (done.returncode, done.stderr) == (0, ""), command
        if command.startswith("cp "):
            server.args = (*where, "--appendonly", "no")
            server.restart()
            assert contents(server.client()) == before
    wait_until(lambda: not server.client().info("persistence")["aof_rewrite_in_progress"])
    server.args = (*where, "--appendonly", appendonly)
    server.restart()
    assert contents(server.client()) == before
    assert run(town, "tt migrate --check").returncode == 1


def conflict(redis: Redis) -> None:
    redis.flushall()
    redis.mset({"tt:stop:1": 1, "tt:my-project:stop:1": 2})


def documented_user() -> list[str]:
    """The words of the command that makes a user for all that the program does."""
    permissions = section_of("docs/operations.md", "## Permissions")
    [make] = [line for line in commands(permissions) if "ACL SETUSER" in line]
    words = shlex.split(make)
    return words[words.index("ACL") :]


@pytest.mark.every_kind
def test_the_user_that_the_documents_make_may_do_all_that_they_show(
    server: Server, tmp_path: Path
) -> None:
    town, redis = settled(server, tmp_path), server.client()
    redis.rpush("tt:my-project:backlog", "new")
    redis.set("tt:my-project:stop:aaaaaaaa-4c1d-4e8f-9a2b-000000000005", 2)
    redis.execute_command(*documented_user())
    user: dict[str, Any] = {
        "REDIS_URL": server.url.replace("//", "//migration:change-me@").replace("/0", "/1")
    }
    redis.execute_command("SWAPDB", "0", "1")
    merge = "tt migrate --upgrade --on-conflict merge"
    for command in (f"{merge} --dry-run", f"{merge} --force", "tt migrate --reverse --force"):
        _, _, *options = shlex.split(command)
        done = tt(*options, "-t", str(town), town=None, **user)
        assert (done.returncode, "may not" in done.stdout) == (0, False), done.stdout + done.stderr


def test_the_same_user_may_do_it_on_a_cluster_of_several_shards(cluster: Cluster) -> None:
    keys = [("RPUSH", f"tt:{town}inbox:{n}", "a") for n in range(9) for town in ("", "town:")]
    fill(cluster, [*keys, ("SET", "tt:agent:1", '{"id": "1"}')])
    for server in cluster.servers:
        server.client().execute_command(*documented_user())
    url = cluster.url.replace("//", "//migration:change-me@")
    merge = "--upgrade --on-conflict merge"
    for options, status in (("--check", 1), (f"{merge} --dry-run", 0), (f"{merge} --force", 0)):
        done = tt(*options.split(), url=url, town="town")
        assert (done.returncode, "may not" in done.stdout) == (status, False), done.stderr


STATES: dict[str, Callable[[Redis], object]] = {"tt migrate --force": conflict}
"""What a command's output in a document was copied from, if not from the town as it is."""


def shown() -> list[tuple[str, str, list[str]]]:
    found = [(document, block) for document in DOCUMENTS for block in blocks(text_of(document))]
    return [(name, first[2:], rest) for name, (first, *rest) in found if first.startswith("$ ")]


@pytest.mark.parametrize(("document", "command", "lines"), shown())
def test_the_output_shown_is_the_output(
    newest: Server, town: Path, document: str, command: str, lines: list[str]
) -> None:
    if command in STATES:
        STATES[command](newest.client())
    written = re.sub(r"\d\.\d\d s", "0.00 s", run(town, command).stdout).splitlines()
    for line in lines:
        left_out = re.fullmatch(r" +\(\.\.\. (\d+) more lines \.\.\.\)", line)
        if left_out:
            del written[: int(left_out[1])]
        else:
            assert line == written.pop(0)
    assert written == []


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_python_example_runs(newest: Server, town: Path, number: int) -> None:
    text = (ROOT / "docs/python.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 3
    done = subprocess.run(
        [sys.executable, "-c", examples[number]],
        cwd=town,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    if number == 0:
        assert lines[-2:] == ["32 {} {} 0", "{'agent': 7, 'task': 8} {} True"]
    elif number == 1:
        assert len(lines) == 32
        assert all(line.startswith("renamed b'tt:") for line in lines)


def test_units_for_systemd_can_be_read() -> None:
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    service, timer, credential = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    for unit, section in ((service, "Service"), (timer, "Timer"), (credential, "Service")):
        parser = ConfigParser(interpolation=None)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(unit)
        assert section in parser
    words = shlex.split(re.findall(r"ExecStart=(.*)", service)[0])[1:]
    migrate.make_context("tt-migrate", words)


def test_the_commands_of_the_kubernetes_job_and_of_github_run(newest: Server, town: Path) -> None:
    text = text_of("docs/operations.md")
    [arguments] = re.findall(r"(?m)^ +args: \[(.*)\]$", text)
    steps = re.findall(r"(?m)^ +- run: (.*)$", text)
    image = (ROOT / "Dockerfile").read_text("utf-8")
    assert 'ENTRYPOINT ["tt"]' in image
    elsewhere = town.parent
    assert steps[0] == "pip install ."
    checked = run(elsewhere / "bin", steps[1], REDIS_URL=newest.url)
    assert (checked.returncode, checked.stderr) == (1, "")
    job = run(elsewhere / "bin", f"tt {arguments.replace(',', '')}", REDIS_URL=newest.url)
    assert (job.returncode, job.stderr) == (0, "")
    assert json.loads(job.stdout)["migrated"] == 32


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.splitlines()) <= 150


def test_the_readme_says_first_what_matters_first() -> None:
    order = [
        "docs/demo.svg",
        "make demo",
        "pipx install",
        "**back up first**",
        "tt migrate --upgrade",
    ]
    order += ["## Rename only", "## Check", "## The way back", "--nice 3", "## What it guarantees"]
    places = [README.index(text) for text in order]
    assert places == sorted(places)
    assert "--downgrade" in section_of("README.md", "## The way back").partition(".")[0]


def sources() -> str:
    """The program's texts, where neighbouring literals are one."""
    files = (*(ROOT / "tt_migrate").rglob("*.py"), *(ROOT / "lua").rglob("*.lua"))
    text = "\n".join(file.read_text("utf-8") for file in files)
    return re.sub(r'"\s+f?"', "", text)


def test_what_the_questions_quote_is_what_the_program_says() -> None:
    quoted = re.findall(r"(?m)^\| (`.*?) \|", text_of("docs/faq.md"))
    messages = [text for cell in quoted for text in re.findall(r"`(.*?)`", cell)]
    program = sources()
    assert len(messages) > 25
    for message in messages:
        for part in re.split(r"\.\.\. ?|'task'|backlog", message):
            assert part.strip() in program, message


def test_every_error_of_a_server_has_an_answer() -> None:
    answers = text_of("docs/faq.md")
    for _, meaning in _MEANINGS:
        beginning = re.split(r"[:;.,({]| and serves", meaning)[0].strip()
        assert beginning in answers, meaning


def test_missed_bars_stand_in_performance_only() -> None:
    for document in DOCUMENTS:
        if document != "docs/performance.md":
            assert "| no |" not in (ROOT / document).read_text("utf-8"), document


def test_every_option_and_its_variable_are_in_the_reference() -> None:
    for parameter in migrate.params:
        for option in parameter.opts if parameter.param_type_name == "option" else ():
            assert re.search(rf"`{option}[ `|]", REFERENCE), option
        if parameter.envvar:
            assert f"`{parameter.envvar}`" in REFERENCE
    settings = (ROOT / "tt_migrate/settings/config.py").read_text("utf-8")
    variables = re.findall(r'environ(?:ment)?\.get\("(\w+)"|"(\w*(?:URL|PASSWORD))"', settings)
    names = {name for pair in variables for name in pair if name}
    assert len(names) == 3
    for variable in names:
        assert f"| `{variable}` |" in REFERENCE


def test_every_field_of_the_json_document_is_in_the_reference() -> None:
    table = REFERENCE.partition("## JSON")[2]
    rows = re.findall(r"(?m)^\| ((?:`\w+`(?:, )?)+) \|", table)
    named = {name for row in rows for name in re.findall(r"\w+", row)}
    assert named == FIELDS | {"error", "moves", "merges", "conversions", "refused"}


def test_measured_figures_are_those_of_the_last_bench() -> None:
    results = (ROOT / "bench/results/README.md").read_text("utf-8").splitlines()
    text = (ROOT / "docs/performance.md").read_text("utf-8")
    figures = re.findall(r"(?m)^\| .* \| (?:yes|no) \|$", text)
    assert len(figures) > 3
    assert [row for row in figures if row not in results] == []


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.*)$", document.read_text("utf-8"))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_pictures_documents_and_sections_that_are_linked_exist() -> None:
    for name in DOCUMENTS:
        file = ROOT / name
        for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", file.read_text("utf-8")):
            path, _, section = link.partition("#")
            target = file.parent / path if path else file
            assert target.exists(), f"{name}: {link}"
            assert not section or section in anchors(target), f"{name}: {link}"


def test_every_document_can_be_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", README))
    assert {name for name in DOCUMENTS if name != "README.md"} <= linked


@pytest.mark.parametrize("file", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_the_files_that_are_named_exist(file: str) -> None:
    named = set(
        re.findall(r"`([\w./-]+\.(?:py|lua|toml|yml|md))`", (ROOT / file).read_text("utf-8"))
    )
    rooms = [*(ROOT / "tt_migrate").rglob("*/"), *(ROOT / "lua").rglob("*/")]
    places = (ROOT, ROOT / "tt_migrate", ROOT / "lua", *rooms)
    missing = {name for name in named if not any((place / name).is_file() for place in places)}
    assert len(named) > 3
    assert missing == set()


def test_the_architecture_names_every_file_of_the_rooms() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    for file in (ROOT / "tt_migrate").rglob("*.py"):
        assert file.name == "__init__.py" or f"{file.name}`" in text, file
    lua = ROOT / "lua"
    for file in (*lua.glob("*.lua"), *(lua / "cluster").glob("*.lua")):
        assert f"{file.name}`" in text, file
    for place in lua.iterdir():
        is_room = place.is_dir() and not place.name.startswith("__")
        assert not is_room or f"`{place.name}/`" in text, place
