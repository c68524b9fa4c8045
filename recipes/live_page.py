"""Record the moving picture of the live page that README shows: python recipes/live_page.py docs/images/live.gif

It needs the extra `dev` and Chromium. The page is paused and stepped, so that the picture is smooth on any machine.
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
from playwright.sync_api import Page, sync_playwright

from saccade.data.video import write_gif

WIDTH_PX, HEIGHT_PX, SCALE = 1160, 850, 0.8
NUM_PICTURES, EVERY, FPS = 40, 2, 10


def main(path: Path) -> None:
    """Serve the package's models on strokes, and write a GIF of the page."""
    command = [sys.executable, "-m", "saccade.cli", "serve", "--digits", "strokes", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server, sync_playwright() as playwright:
        try:
            assert server.stderr is not None
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            size = {"width": WIDTH_PX, "height": HEIGHT_PX}
            page = browser.new_page(viewport=size, device_scale_factor=SCALE, color_scheme="light")
            page.goto(address)
            pictures = record(page)
        finally:
            server.terminate()
    write_gif(path, torch.stack(pictures), fps=FPS)
    print(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB")


def record(page: Page) -> list[torch.Tensor]:
    """Return pictures of the page, some frames apart."""
    page.wait_for_selector(".card")
    last = NUM_PICTURES * EVERY + 20
    while int(page.locator("#scrub").get_attribute("max") or 0) < last:
        page.wait_for_timeout(200)
    page.click("#pause")
    page.evaluate("scrollTo(0, 0)")
    pictures = []
    for number in range(20, last, EVERY):
        page.locator("#scrub").fill(str(number))
        page.wait_for_timeout(120)
        with av.open(io.BytesIO(page.screenshot())) as container:
            frame = next(container.decode(video=0))
            pictures.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1))
    return pictures


if __name__ == "__main__":
    main(Path(sys.argv[1]))
