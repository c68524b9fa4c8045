"""The frame of an HTML page that needs no other file: its head, the style that pages share, and its security policy."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from importlib import resources
from string import Template

import saccade


def html_page(body: str, *, title: str, style: str, script: str = "") -> str:
    """Return a whole page; its content security policy allows only its own style and script, and pictures within it.

    Args:
        body: the content, as HTML.
        title: the title, as text.
        style: the page's own style sheet, which follows the shared one.
        script: a JavaScript module; empty for a page without a script.
    """
    style = _own("html_page.css") + style
    allowed = f"script-src {_hash(script)}; " if script else ""
    return Template(_own("html_page.html")).substitute(
        policy=f"default-src 'none'; {allowed}style-src {_hash(style)}; img-src data:",
        version=saccade.__version__,
        title=escape(title),
        style=style,
        body=body,
        script=f'<script type="module">{script}</script>\n' if script else "",
    )


def _own(name: str) -> str:
    return (resources.files("saccade") / "evaluate" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
