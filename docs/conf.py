"""How the site is built: `make docs`."""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.typing import stringify_annotation

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
project = "Saccade"
author = about["authors"][0]["name"]
project_copyright = author
version = release = about["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]
nitpicky = True
nitpick_ignore = [("py:class", "saccade.distributed._T")]  # a variable of types
# Quotes stay as they are; only ` -- ` between a parameter and its meaning becomes a dash.
smartquotes_action = "D"
myst_heading_anchors = 4

add_module_names = False
autodoc_default_options = {"members": True, "member-order": "bysource", "special-members": "__call__"}
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

autosummary_generate = False
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

DIGITS = "saccade.data.digits"
PUBLIC = (ROOT / "tests" / "public_names.txt").read_text(encoding="utf-8").split()
PUBLIC += [f"{DIGITS}.{name}" for name in import_module(DIGITS).__all__]
ROOMS = {name.rpartition(".")[0] for name in PUBLIC}
SECTIONS, INDENT = ("Args:", "Returns:", "Raises:"), 4 * " "
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")


def _is_called(target: str, name: str) -> bool:
    """Tell whether text means a public name: a class by its name, anything by its name behind its module's."""
    return name.endswith(f".{target}") and (target[0].isupper() or "." in target)


def _public(target: str, module: str) -> str | None:
    """Return the public name that text in a module's docstring means, if there is one and no other."""
    if f"{module}.{target}" in PUBLIC:
        return f"{module}.{target}"
    found = [name for name in PUBLIC if name == target or _is_called(target, name)]
    return found[0] if len(found) == 1 else None


def mark_code(module: str, text: str) -> str:
    """Return a docstring with its code in single backticks as literals, and names that are public as links."""

    def marked(found: re.Match[str]) -> str:
        code = " ".join(found[1].split())
        name = _public(code.removesuffix("()"), module)
        return f":py:obj:`{code} <{name}>`" if name else f"``{code}``"

    return CODE.sub(marked, text)


def types_of(thing: Any) -> dict[str, str]:
    """Return the types of a function's or class's parameters, and of what it returns, as they are to be shown."""
    try:
        parameters = inspect.signature(thing).parameters.values()
    except ValueError:  # made in C, such as an exception without an __init__ of its own
        return {}
    called = thing.__init__ if inspect.isclass(thing) and "__init__" in vars(thing) else thing
    try:
        hints = get_type_hints(called)
    except NameError:  # a type that is imported only where it is needed
        hints = inspect.get_annotations(called)
    wanted = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if not inspect.isclass(thing) and hints.get("return") not in (None, type(None)):
        wanted.append("return")
    return {name: stringify_annotation(hints[name], "smart").replace("*", r"\*") for name in wanted if name in hints}


def split_sections(lines: list[str]) -> tuple[list[str], dict[str, dict[str, str]], list[str]]:
    """Split a docstring into what stands before its sections, these by entry, and what stands behind."""
    before, behind = [], []
    sections: dict[str, dict[str, str]] = {title: {} for title in SECTIONS}
    title = entry = ""
    for line in lines:
        if line in SECTIONS:
            title, entry = line, ""
        elif title and line.startswith(" "):
            text = line.strip()
            if title != "Returns:" and not line.removeprefix(INDENT).startswith(" "):
                entry, _, text = text.partition(": ")
            sections[title][entry] = f"{sections[title].get(entry, '')} {text}".strip()
        elif line or not title:
            title = ""
            (behind if any(sections.values()) else before).append(line)
    return before, sections, behind


def as_fields(sections: Mapping[str, Mapping[str, str]], types: Mapping[str, str]) -> list[str]:
    """Return sections as a list of fields, with the types of arguments and of what is returned."""
    told = sections["Args:"]
    names = [name for name in (*types, *told) if name != "return"]
    fields = [f":param {name}: {told.get(name, '')}" for name in dict.fromkeys(names)]
    fields += [f":type {name}: {shown}" for name, shown in types.items() if name != "return"]
    fields += [f":returns: {text}" for text in sections["Returns:"].values()]
    fields += [f":rtype: {types['return']}"] if "return" in types else []
    return fields + [f":raises {error}: {text}" for error, text in sections["Raises:"].items()]


def names_in(value: Any) -> list[str]:
    """Return the lines that tell the names in a table of names."""
    return ["Names: " + ", ".join(f"``{name}``" for name in value)] if isinstance(value, Mapping) else []


def docstring_of(name: str, value: Any) -> list[str]:
    """Find the docstring of a constant in the module that defines it, which may not be the one that exports it."""
    room, _, constant = name.rpartition(".")
    for module in [module for module in sys.modules if f"{module}.".startswith(f"{room}.")]:
        if vars(sys.modules[module]).get(constant) is value:
            lines = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", constant))
            if lines:
                return lines
    return []


def prepare_docstring(app: Sphinx, what: str, name: str, thing: Any, options: object, lines: list[str]) -> None:
    """Bring a docstring into Sphinx's form: code marked, sections as fields, types and values told."""
    room = max((room for room in ROOMS if f"{name}.".startswith(f"{room}.")), key=len, default=name)
    if what == "data":
        told = mark_code(room, "\n".join(docstring_of(name, thing)))
        lines[:] = [*told.split("\n"), "", *names_in(thing)]
        return
    lines[:] = mark_code(room, "\n".join(lines)).split("\n")
    if what in ("class", "exception", "function", "method"):
        before, sections, behind = split_sections(lines)
        lines[:] = [*before, "", *as_fields(sections, types_of(thing)), "", *behind]


def plain_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: object, signature: str | None, returned: str | None
) -> tuple[str, None] | None:
    """Leave out a signature that says nothing, such as that of a protocol."""
    return ("", None) if what == "class" and signature == "(*args, **kwargs)" else None


def skip_fields(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: object) -> bool | None:
    """Leave out a named tuple's fields, which stand among its parameters."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def find_reference(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Resolve a class by its bare name; leave types that exist but have no page here as text."""
    target = node["reftarget"]
    if node["refdomain"] != "py":
        return None
    if name := _public(target, node.get("py:module") or ""):
        return env.get_domain("py").resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, text)
    is_known = "'" in target or any(_exists(f"{room}{target}") for room in ("", "torch.", "numpy."))
    return text if is_known else None


def _exists(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(import_module(module or "builtins"), attribute)
    except ImportError:
        return False


def setup(app: Sphinx) -> None:
    """Connect what prepares docstrings and resolves names."""
    app.connect("autodoc-process-docstring", prepare_docstring)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("missing-reference", find_reference)
