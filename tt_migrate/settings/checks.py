"""Checks names, passwords and files, and finds what shells and files of variables add to them."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import category

from tt_migrate.escape import shown_text

QUOTES = "'\"`"
_PASSWORD_FILE_BYTES = 64 << 10


class ConfigError(Exception):
    """An option, a variable or a file is wrong. The message is one line without passwords."""


@dataclass(frozen=True)
class Password:
    """A password from the environment. `remark`: what is odd about it, without the password."""

    text: str | None = field(default=None, repr=False)
    remark: str = ""


def town_name_problem(option: str, name: str) -> str | None:
    """What is wrong with a town's name from an option or its variable; None if nothing is.

    In a town's file, any name is right. From a shell or a file of variables, a carriage return,
    blanks at the ends and quotes around a name are leftovers.
    """
    blanks = "".join(filter(_is_blank, name))
    bare = "".join(character for character in name if category(character) != "Cc").strip(blanks)
    if is_quoted(bare):
        bare = bare[1:-1].strip()
    if not bare:
        return f"{option} is blank: give the town's name"
    if bare == name:
        return None
    return (
        f"{option} is '{shown_text(name)}', which has a leftover of a shell or a file of variables:"
        f" give it as '{shown_text(bare)}'"
    )


def is_quoted(text: str) -> bool:
    """Whether quotes stand around a text."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in QUOTES


def given_password(name: str, environ: Mapping[str, str]) -> Password:
    """Return the password in a variable, or in the file that the variable `<name>_FILE` names.

    Drops one line end after it. Raises ConfigError.
    """
    source, text, path = name, environ.get(name), environ.get(f"{name}_FILE")
    if path and text:
        raise ConfigError(f"{name} and {name}_FILE are both set: unset one of them")
    if path:
        source, text = f"{name}_FILE", _password_in(Path(path), f"{name}_FILE")
    if text is None:
        return Password()
    password = re.sub(r"(\r\n|\r|\n)\Z", "", text)
    odd = {
        f"the line end of {source} was left out": password != text,
        f"the password of {source} has quotes, which are taken as a part of it": is_quoted(
            password
        ),
        f"the password of {source} has a blank or a line end at an end": password.strip()
        != password,
    }
    return Password(password, "; ".join(remark for remark, holds in odd.items() if holds))


def _password_in(path: Path, variable: str) -> str:
    try:
        # Some editors begin a file with a byte order mark.
        text = read_file(path, _PASSWORD_FILE_BYTES).decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise ConfigError(f"{variable}: {shown_text(str(path))} {problem}") from None
    if not text.strip("\r\n"):
        raise ConfigError(f"{variable}: {shown_text(str(path))} is empty: write the password to it")
    return text


def read_file(path: Path, most: int) -> bytes:
    """Return what is in a regular file of at most `most` bytes.

    Reading anything else, such as a FIFO or a device, could block or never end. So could a file
    that has no size, such as /proc/kmsg: it counts as empty.

    Raises OSError with the reason as its `strerror`.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 10} KiB")
    with path.open("rb") as file:
        return file.read(status.st_size)


def _is_blank(character: str) -> bool:
    # Cf has the byte order mark.
    return character.isspace() or category(character) in ("Cc", "Cf")
