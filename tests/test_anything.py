"""With random options, files and answers, the command ends as documented."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.command import assert_harmless, tt_in_process
from tests.servers import Server
from tests.test_properties import foreign_keys, old_keys

SERVER = "{server}"
"""A placeholder for the server's URL in generated arguments."""

urls = st.sampled_from(
    [
        *[SERVER] * 6,
        f"{SERVER}?protocol=2",
        f"{SERVER}?nonsense=\x1b",
        "redis://:s3cr3t@127.0.0.1:1",
        "redis://:s3c/r3t@127.0.0.1",
        "unix:///nowhere/\x1b[2J",
        "redis://127.0.0.1:99999999",
        "http://h",
        "\udcff",
        " ",
        "",
    ]
)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
names = st.one_of(st.sampled_from(["my-project", "task", "--json", "\x1b[2J", "\udcff"]), texts)
numbers = st.one_of(
    st.sampled_from(["nan", "inf", "-inf", "-0", "1e400", "0", "1", "5", "1000", "1001", "0x10"]),
    st.integers().map(str),
    st.just("9" * 5000),
    st.floats().map(str),
    texts,
)
flags = st.sampled_from(
    [
        "--dry-run",
        "--check",
        "--force",
        "--hash",
        "--upgrade",
        "--reverse",
        "--json",
        "--quiet",
        "-q",
        "-v",
        "--verbose",
    ]
)
odd = st.sampled_from(
    [
        "--help",
        "--version",
        "-qv",
        "--jso",
        "--json=1",
        "-x",
        "--force=no",
        "migrate",
        "nothing",
        "\x1b[2J",
        "\udcff",
        "--\u202e",
    ]
)


def with_value(name: str, values: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.one_of(
        values.map(lambda value: (name, value)), values.map(lambda value: (f"{name}={value}",))
    )


options = st.lists(
    st.one_of(
        flags.map(lambda flag: (flag,)),
        flags.map(lambda flag: (flag,)),
        with_value("--redis-url", urls),
        with_value("--town-name", names),
        with_value("--max-pause", numbers),
        with_value("--nice", numbers),
        with_value("--on-conflict", st.sampled_from(["skip", "merge", "Merge", "\x1b"])),
        with_value("--legacy-prefix", st.sampled_from(["mt", "tt", "\x1b"])),
        odd.map(lambda text: (text,)),
    ),
    max_size=7,
)
usual = st.lists(flags.map(lambda flag: (flag,)), max_size=3).map(
    lambda chosen: [("--redis-url", SERVER), ("--town-name", "my-project"), *chosen]
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts, urls)
tables = st.fixed_dictionaries(
    {},
    optional={
        "name": st.one_of(names, scalars),
        "redis": st.one_of(
            scalars,
            st.fixed_dictionaries(
                {},
                optional={
                    "url": st.one_of(urls, scalars),
                    "use_socket": scalars,
                    "socket_path": st.one_of(texts, scalars),
                    "host": st.sampled_from(["127.0.0.1", "", "a b", "\x1b", 7]),
                    "port": st.one_of(st.just(1), scalars),
                    "password": scalars,
                    "tls_enabled": scalars,
                    "tls_ca_cert": st.sampled_from(["/nowhere/\x1b", "", "tinytown.toml", 7]),
                },
            ),
        ),
    },
)
contents = st.one_of(
    st.none(), st.binary(max_size=50), tables.map(lambda table: json.dumps(table).encode())
)
toml = st.one_of(
    contents,
    tables.map(
        lambda table: "\n".join(
            f"{name} = {json.dumps(value)}"
            for name, value in table.items()
            if not isinstance(value, dict)
        ).encode()
    ),
    names.map(lambda name: f"name = {json.dumps(name)}\n[redis]\nurl = '{SERVER}'".encode()),
)
answers = st.one_of(
    st.sampled_from([b"y\n", b"yes\n", b"n\n", b"", b"y" * 10_000, b"\0" * 200, b"\xff\n"]),
    st.binary(max_size=9),
)


@given(
    options=st.one_of(options, usual),
    files=st.fixed_dictionaries({"tinytown.toml": toml, "tinytown.json": contents}),
    variable=st.one_of(st.none(), urls.filter(lambda url: "\udcff" not in url)),
    answer_and_keys=st.tuples(
        answers, st.lists(st.one_of(old_keys, foreign_keys), max_size=6, unique=True)
    ),
)
@example([("--json",), ("--nice", "nan")], {}, None, (b"", []))
@example([("--json",), ("--nice=-0",)], {}, None, (b"", []))
@example([("--town-name", "--json"), ("--nonsense",)], {}, None, (b"", []))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_it_ends_with_a_documented_status_one_document_and_no_control_character(
    newest: Server,
    tmp_path: Path,
    options: list[tuple[str, ...]],
    files: dict[str, bytes | None],
    variable: str | None,
    answer_and_keys: tuple[bytes, list[bytes]],
) -> None:
    answer, keys = answer_and_keys
    redis = newest.client()
    redis.flushall()
    for key in keys:
        redis.set(key, b'{"id": "1"}')
    for name, content in files.items():
        (tmp_path / name).unlink(missing_ok=True)
        if content is not None:
            (tmp_path / name).write_bytes(content.replace(SERVER.encode(), newest.url.encode()))
    args = [word.replace(SERVER, newest.url) for option in options for word in option]
    variables = {} if variable is None else {"REDIS_URL": variable.replace(SERVER, newest.url)}

    done = tt_in_process("-t", str(tmp_path), *args, answer=answer, **variables)

    assert done.returncode in (0, 1, 2, 3, 4)
    assert_harmless(done)
    assert "internal:" not in done.stdout + done.stderr
    if ("--json",) in options and not {"--help", "--version"} & set(args):
        document = json.loads(done.stdout)
        assert bool(document.get("error")) == (done.returncode in (2, 3, 4))
        assert done.returncode != 1 or document["remaining"] or document["strings"]
    elif done.returncode in (2, 3):
        assert "Error: " in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@given(town=names, keys=st.lists(old_keys, min_size=1, max_size=5, unique=True))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_preview_is_harmless_in_every_encoding(
    newest: Server, encoding: str, town: str, keys: list[bytes]
) -> None:
    redis = newest.client()
    redis.flushall()
    redis.mset(dict.fromkeys(keys, b"1"))
    args = ("--dry-run", "--redis-url", newest.url, "--town-name", town or "t")
    assert_harmless(tt_in_process(*args, encoding=encoding))
