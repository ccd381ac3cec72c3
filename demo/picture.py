"""Draws what the demo printed as an SVG that looks like a terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from html import escape, unescape
from pathlib import Path

PICTURE = Path(__file__).parent.parent / "docs" / "demo.svg"

_SHOWN = ("tt migrate --upgrade --dry-run --limit 1", "tt migrate --upgrade")
_ANSWERED = "   (answered with y)"
_COLUMN, _LINE, _MARGIN = 8, 19, 16
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_BOLD = ' font-weight="bold" fill="#7ee787"'


def demo_output() -> str:
    """Run the demo. Returns what it printed, stderr included."""
    command = [sys.executable, "-m", "demo"]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=True
    )
    return done.stdout


def shown_lines(output: str) -> list[str]:
    """The lines of the demo's output that the picture has.

    What differs from run to run or is long is made alike: paths, times, versions and the ids of
    agents and tasks.
    """
    steps = re.split(r"(?m)^(?=\$ tt )", output)
    text = "\n\n".join(
        step.partition("\n(exit status")[0]
        for command in _SHOWN
        for step in steps
        if step.startswith((f"$ {command}\n", f"$ {command}{_ANSWERED}"))
    )
    text = text.replace(_ANSWERED, "").replace("[y/N] ", "[y/N] y")
    text = re.sub(r"unix://\S*/my-project/", "unix:///home/me/my-project/", text)
    text = re.sub(r"Server: \w+ [\d.]+,", "Server: valkey 9.1.2,", text)
    text = re.sub(r"\b([0-9a-f]{8})-[0-9a-f-]{27}", r"\1-…", text)
    return re.sub(r"\d\.\d\d s", "0.01 s", text).splitlines()


def drawn(lines: list[str]) -> str:
    """An SVG of lines of text."""
    width = _COLUMN * max(map(len, lines)) + 2 * _MARGIN
    height = _LINE * len(lines) + 2 * _MARGIN
    texts = "\n".join(
        f'<text x="{_MARGIN}" y="{_MARGIN + _LINE * n - 5}"'
        f"{_BOLD if line.startswith('$') else ''}>{escape(line, quote=False)}</text>"
        for n, line in enumerate(lines, 1)
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">
<title>A town is previewed and upgraded</title>
<rect width="100%" height="100%" rx="8" fill="#161b22"/>
<g fill="#e6edf3" font-family="{_FONT}" font-size="13" xml:space="preserve">
{texts}
</g>
</svg>
"""


def text_of(svg: str) -> list[str]:
    """The lines of text of an SVG that drawn() made."""
    return [unescape(line) for line in re.findall(r"<text [^>]*>(.*?)</text>", svg)]
