"""Replaces requirements on Celery in files of dependencies."""

from __future__ import annotations

import re

from ..model import Finding, Verdict
from ..workspace import Source

#: Kinds of files that hold requirements, see :mod:`raycelery.migrate.files.discover`.
KINDS = frozenset({"requirements", "setup.cfg", "pyproject", "pipfile", "lock"})
#: Extras of Celery that raycelery has too.
EXTRAS = frozenset({"redis"})
REQUIREMENT = re.compile(
    r"(?P<name>celery)(?P<extras>[ \t]*\[[^\]\n]*\])?(?P<version>[ \t]*(\(?[<>=!~][^;#\n\"'\\\\]*|@[^;#\n\"']*))?"
    r"(?P<rest>[ \t]*(;[^#\n]*)?)",
    re.I,
)
_LINE = re.compile(
    rf"^(?P<indent>[ \t]*){REQUIREMENT.pattern}(?P<tail>[ \t]*(#[^\n]*|--hash[^\n]*|\\)?\r?)$", re.I | re.M
)
_QUOTED = re.compile(rf"(?P<quote>[\"']){REQUIREMENT.pattern}(?P=quote)", re.I)
_ASSIGNED = re.compile(
    r"^(?P<key>[ \t]*[\"']?celery[\"']?[ \t]*=[ \t]*)(?P<value>[^#\n\r]*?)(?P<tail>[ \t]*(#[^\n]*)?\r?)$", re.M
)
_PINS = re.compile(r"^[ \t]*[\"']?(?P<name>amqp|billiard|kombu|vine)[\"']?[ \t]*=", re.M)
#: Kinds of files with commands that may install something.
INSTALLING = frozenset({"dockerfile", "shell", "compose", "systemd", "procfile"})
_INSTALL = re.compile(
    r"\b(?:pip[\d.]*|uv(?:\s+pip)?|poetry|pipenv|conda|mamba)\s+(?:install|add)\b(?P<packages>(?:\\\r?\n|[^\n;&|])*)"
)
_PACKAGE = re.compile(r"(?<![\w./:@-])celery(?![\w./-])", re.I)
_CONDA = re.compile(r"(.*[-_.])?(environment|conda)([-_.].*)?\.ya?ml")
_ITEM = re.compile(
    r"^[ \t]*(?:-[ \t]+|deps[ \t]*=[ \t]*)?[\"']?(?P<name>celery)(?:\[[^\]\n]*\])?[ \t]*(?:[<>=!~@][^\n]*)?[\"']?"
    r"[ \t]*\r?$",
    re.I | re.M,
)
_SECTION = re.compile(r"^[ \t]*\[+(?P<name>[^\]\n]+)\]+", re.M)
_DEPENDENCY_SECTION = re.compile(
    r"dependencies$|^(dev-)?packages$|dependency-groups|optional-dependencies|^project$|^build-system$"
)


def requirement(match: re.Match[str], to: str = "raycelery") -> tuple[str, list[str]]:
    """Return the requirement that replaces one on Celery, and the extras of Celery that it lacks."""
    extras = [one.strip() for one in (match["extras"] or "").strip(" \t[]").split(",") if one.strip()]
    kept = [one for one in extras if one.lower() in EXTRAS and to == "raycelery"]
    lost = [one for one in extras if one.lower() not in EXTRAS and to == "raycelery"]
    rest = match["rest"] or ""
    version = match["version"] or ""
    space = version[len(version.rstrip()) :] if rest.strip() else ""
    text = to + (f"[{','.join(kept)}]" if kept else "") + space + rest
    return text, lost


def swap(source: Source, to: str = "raycelery") -> tuple[str, list[Finding]]:
    """Return the new text of a file of dependencies, and findings about what must be changed by hand.

    Arguments:
        to: the package that replaces Celery: "raycelery" or "ray".
    """
    assert source.text is not None
    text, findings = source.text.content, []
    kind = source.kind
    if kind == "lock" and re.search(r"^name = \"celery\"|\"celery\":", text, re.M):
        findings.append(
            Finding(str(source.path), 1, 1, "dependency", "celery", Verdict.MANUAL, "a lock file is made by its tool",
                    "lock again after the change")
        )  # fmt: skip
    if kind not in KINDS - {"lock"} or re.search(rf"(?<![\w-]){to}(?![\w-])", text):
        return text, findings
    edits: list[tuple[int, int, str]] = []
    if kind in ("requirements", "setup.cfg"):
        edits += _lines(text, source, findings, to)
    if kind in ("setup.cfg", "pyproject"):
        edits += _quoted(text, source, findings, to)
    if kind in ("pyproject", "pipfile"):
        edits += _assigned(text, source, findings, to)
    for match in _PINS.finditer(text) if edits else ():
        findings.append(
            Finding(str(source.path), *_place(text, match.start("name")), "dependency", match["name"], Verdict.MANUAL,
                    "Celery's own dependency is pinned, for the Celery that was there", "take the pin away")
        )  # fmt: skip
    for start, end, new in sorted(set(edits), reverse=True):
        text = text[:start] + new + text[end:]
    return text, findings


def installs(source: Source) -> list[Finding]:
    """Return a finding for each place that installs Celery and is changed by hand: commands, conda's and tox's."""
    assert source.text is not None
    text, name = source.text.content, source.path.name
    places = [
        command.start("packages") + match.start()
        for command in (_INSTALL.finditer(text) if source.kind in INSTALLING else ())
        for match in _PACKAGE.finditer(command["packages"])
    ]
    if _CONDA.fullmatch(name) or name == "tox.ini":
        places += [match.start("name") for match in _ITEM.finditer(text)]
    return [
        Finding(str(source.path), *_place(text, place), "dependency", "celery", Verdict.MANUAL, "it installs Celery",
                "have it install raycelery, which brings Celery along")
        for place in places
    ]  # fmt: skip


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _lost(source: Source, text: str, offset: int, lost: list[str], findings: list[Finding]) -> None:
    if lost:
        names = ", ".join(lost)
        findings.append(
            Finding(str(source.path), *_place(text, offset), "dependency", f"celery[{names}]", Verdict.CHANGES,
                    f"raycelery has no extra of the name {names}",
                    f"keep a line celery[{','.join(lost)}] if a broker or backend that it brings stays in use")
        )  # fmt: skip


def _section(text: str, offset: int) -> str:
    name = ""
    for match in _SECTION.finditer(text, 0, offset):
        name = match["name"].strip()
    return name


def _lines(text: str, source: Source, findings: list[Finding], to: str) -> list[tuple[int, int, str]]:
    edits = []
    for match in _LINE.finditer(text):
        if source.kind == "setup.cfg" and (
            not match["indent"] or not _section(text, match.start()).startswith("options")
        ):
            continue
        if "--hash" in match[0] or match["tail"].startswith("\\") or match["tail"].strip() == "\\":
            findings.append(
                Finding(str(source.path), *_place(text, match.start("name")), "dependency", "celery", Verdict.MANUAL,
                        "a requirement with hashes is made by a tool", "change its input and compile it again")
            )  # fmt: skip
            continue
        new, lost = requirement(match, to)
        _lost(source, text, match.start("name"), lost, findings)
        start = match.start("name")
        matched = text[start : match.start("tail")].rstrip()
        edits.append((start, start + len(matched), new.rstrip()))
    return edits


def _quoted(text: str, source: Source, findings: list[Finding], to: str) -> list[tuple[int, int, str]]:
    edits = []
    for match in _QUOTED.finditer(text):
        line_start = text.rfind("\n", 0, match.start()) + 1
        if text[line_start : match.start()].lstrip().startswith("#") or not _is_dependency(
            text, match, source.kind == "pyproject"
        ):
            continue
        new, lost = requirement(match, to)
        _lost(source, text, match.start(), lost, findings)
        edits.append((match.start("name"), match.end() - 1, new))
    return edits


def _is_dependency(text: str, match: re.Match[str], whole: bool) -> bool:
    """Whether a quoted requirement stands in a list of dependencies."""
    section = _section(text, match.start())
    before = text[: match.start()]
    opened = before.rfind("[")
    key = before[:opened].rstrip().rstrip("=").rstrip() if opened != -1 else ""
    name = re.search(r"[\w.\-\"']+$", key)
    if not whole:
        return False
    if not _DEPENDENCY_SECTION.search(section):
        # A tool's own, such as uv's and hatch's.
        return name is not None and name[0].strip("\"'").endswith("dependencies") and opened > before.rfind("]")
    if section in ("project", "build-system"):
        return name is not None and name[0].strip("\"'") in ("dependencies", "requires")
    return opened > before.rfind("]")


def _assigned(text: str, source: Source, findings: list[Finding], to: str) -> list[tuple[int, int, str]]:
    edits = []
    for match in _ASSIGNED.finditer(text):
        section = _section(text, match.start())
        if (
            not (section.endswith("dependencies") or section in ("packages", "dev-packages"))
            or section == "project.optional-dependencies"
        ):
            continue
        if match["value"].startswith("{") and not match["value"].endswith("}"):
            continue
        extras = re.search(r"extras\s*=\s*\[([^\]]*)\]", match["value"])
        names = re.findall(r"[\"']([^\"']+)", extras[1]) if extras else []
        kept = [one for one in names if one in EXTRAS]
        _lost(source, text, match.start("key"), [one for one in names if one not in EXTRAS], findings)
        optional = re.search(r"optional\s*=\s*(true|false)", match["value"])
        fields = ['version = "*"']
        if kept:
            fields.append("extras = [" + ", ".join(f'"{one}"' for one in kept) + "]")
        if optional:
            fields.append(optional[0])
        value = '"*"' if len(fields) == 1 else "{ " + ", ".join(fields) + " }"
        edits.append((match.start("key"), match.end("value"), match["key"].replace("celery", to) + value))
    return edits
