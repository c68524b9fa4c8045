"""A page in a browser, and a camera for it."""

from __future__ import annotations

import shutil
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WAIT_MS = 60_000


class Tab:
    """A page in a browser, and what went wrong in it."""

    def __init__(self, browser, address, script="", **options):
        options = {"viewport": {"width": 1280, "height": 860}, "reduced_motion": "no-preference"} | options
        self.context = browser.new_context(**options)
        self.context.add_init_script(script)
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.faults = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.faults.append(said.text))
        self.page.goto(address)

    def number(self):
        """Return the number of the frame that shows."""
        return int(self.page.input_value("#scrub"))

    def wait_for(self, script):
        # Playwright's own way evaluates strings in the page, which its security policy forbids.
        end = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(script):
            assert time.monotonic() < end, f"in vain waited for {script}"
            self.page.wait_for_timeout(30)

    def stream(self, frames=3):
        """Wait until so many more frames have come."""
        self.page.wait_for_selector(".card")
        self.wait_for(f"Number(document.getElementById('scrub').max) >= {self.number() + frames}")

    def shown(self):
        return self.page.inner_text("#truth strong").split()

    def text(self):
        """Return all that can be read on the page."""
        return self.page.inner_text("body")

    def picture(self, card=0):
        return self.page.evaluate(f"document.querySelectorAll('.view canvas')[{card}].toDataURL()")

    def slide(self, name, value):
        self.page.locator(f"#set-{name}").fill(str(value))


def with_camera(playwright, path, *arguments):
    """Start a browser whose camera shows a file, without asking anyone."""
    camera = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={path}",
    ]
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *camera, *arguments])


def write_y4m(path, frames, fps=20, blue_red=(128, 128)):
    """Write frames as raw video, which Chromium takes for its fake camera; the same colour everywhere."""
    height, width = frames.shape[-2:]
    colour = b"".join(bytes([level]) * (height * width // 4) for level in blue_red)
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
        for frame in frames:
            file.write(b"FRAME\n" + frame.numpy().tobytes() + colour)
