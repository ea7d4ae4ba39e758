"""Make the pictures of the README from real sessions: docs/images/demo.svg and docs/images/list.svg.

Run it with the checkout's interpreter: python scripts/pictures.py.  It runs `pgkeep demo` in a pseudo-terminal, then
`list` and `verify` on what the demo kept, and turns what was really printed into SVG by rich's own export.
"""

from __future__ import annotations

import io
import os
import pty
import re
import shutil
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 118
STAGE = Path("/tmp/shop")
IMAGES = Path(__file__).parents[1] / "docs" / "images"
PGKEEP = [sys.executable, "-m", "pgkeep"]
# No fonts from elsewhere: the picture takes the reader's own monospace.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code", "ui-monospace"
)


def session(*argv: str) -> str:
    """What a run of pgkeep prints on a terminal; SystemExit when it fails."""
    printed = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65536)
        printed.extend(data)
        return data

    status = pty.spawn([*PGKEEP, *argv], read)
    if status != 0:
        sys.exit(f"pgkeep {' '.join(argv)} failed with {os.waitstatus_to_exitcode(status)}")
    return printed.decode().replace("\r\n", "\n")


def picture(name: str, title: str, printed: str) -> None:
    """Write `printed` (with its ANSI sequences) as docs/images/<name>.svg."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(printed.rstrip("\n")))
    IMAGES.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(IMAGES / f"{name}.svg"), title=title, code_format=FORMAT, unique_id=f"pgkeep-{name}")


def main() -> None:
    shutil.rmtree(STAGE, ignore_errors=True)
    os.environ["COLUMNS"] = str(WIDTH)
    picture("demo", "pgkeep demo", session("demo", "--keep", "--directory", str(STAGE)))
    config = ("--config", str(STAGE / "pgkeep.toml"))
    words = (["list"], ["verify", "--quiet"])
    printed = "".join(f"$ pgkeep {' '.join(argv)}\n{session(*config, *argv)}\n" for argv in words)
    picture("list", "pgkeep list", printed)
    shutil.rmtree(STAGE)


if __name__ == "__main__":
    main()
