"""README's picture of a report: python docs/make_pictures.py RUN_DIRECTORY (needs Chromium on the path)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURES = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 1100, 1480  # the head of the page, its results and its curves


def photograph(page: Path, picture: Path) -> None:
    """Write the upper part of a page as a PNG of 128 colours."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium is on the path")
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "page.png"
        subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
                f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={whole}", page.resolve().as_uri(),
            ],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with Image.open(whole) as image:
            image.convert("RGB").quantize(128).save(picture, optimize=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    photograph(Path(sys.argv[1]) / "report.html", PICTURES / "report.png")
