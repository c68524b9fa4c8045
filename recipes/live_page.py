"""Record the pictures of the live page in README and guide: python recipes/live_page.py docs/images

It needs the extra `dev` and Chromium. The page is paused and stepped, so that the GIF is smooth on any machine.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import torch
from playwright.sync_api import Page, ViewportSize, sync_playwright

from saccade.data.video_writing import write_gif

LAPTOP, PHONE = ViewportSize(width=1160, height=850), ViewportSize(width=390, height=844)
SCALE = 0.8
NUM_PICTURES, EVERY, FPS = 40, 2, 10
SEED = 3  # of the digits: two that seldom overlap


def main(folder: Path) -> None:
    """Serve the package's models on strokes; write `live.gif`, `serve-laptop.png` and `serve-phone.png`."""
    command = [sys.executable, "-m", "saccade.cli", "serve", "--digits", "strokes", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stderr is not None
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            pictures = record(browser.new_page(viewport=LAPTOP, device_scale_factor=SCALE), address)
            write_gif(folder / "live.gif", torch.stack(pictures), fps=FPS)
            for name, page in (
                ("laptop", browser.new_page(viewport=LAPTOP, color_scheme="light")),
                ("phone", browser.new_page(viewport=PHONE, color_scheme="dark")),
            ):
                stream(page, address, 200)
                page.screenshot(path=folder / f"serve-{name}.png")
        finally:
            server.terminate()


def stream(page: Page, address: str, num_frames: int) -> None:
    """Open the page, wait for so many frames, and pause it."""
    page.goto(f"{address}#s={SEED}")
    page.wait_for_selector(".card")
    while int(page.locator("#scrub").get_attribute("max") or 0) < num_frames:
        page.wait_for_timeout(200)
    page.click("#pause")
    page.evaluate("scrollTo(0, 0)")


def record(page: Page, address: str) -> list[torch.Tensor]:
    """Return pictures of the page, some frames apart."""
    first, last = 20, 20 + NUM_PICTURES * EVERY
    stream(page, address, last)
    pictures = []
    for number in range(first, last, EVERY):
        page.locator("#scrub").fill(str(number))
        page.wait_for_timeout(120)
        with av.open(io.BytesIO(page.screenshot()), "r") as container:
            frame = next(container.decode(video=0))
            pictures.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1))
    return pictures


if __name__ == "__main__":
    main(Path(sys.argv[1]))
