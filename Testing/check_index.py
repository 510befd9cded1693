"""Checks the extension as a reviewer of Slicer's Extensions Index does, as far as that works offline.

    python Testing/check_index.py            prints each check; exit code 1 when one fails
    python Testing/check_index.py --write    copies `Resources/extension.json` into the files that repeat it

What names the project (homepage, contributors, description, citation, pictures) is filled in once, in
`Resources/extension.json`. The reviewer's script reads `CMakeLists.txt` and `MedGen.json` as text, so they hold copies.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "MedGen"
MIB = 2**20
LARGEST_CLONE = 100 * MIB
"""Of the working tree with its history, as the reviewer's script counts."""
LARGEST_PICTURE = 100 * 1024
LICENSES = ("LICENSE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt")
CATEGORY = "Image Synthesis"
"""One of the categories of the index."""
ALLOWED = {*sys.stdlib_module_names, "slicer", "qt", "ctk", "vtk", "SimpleITK", "numpy", "scipy", "SampleData"}
"""What may be imported at file scope: the standard library and what Slicer brings."""
OURS = ("MedGen", "MedGenSlicer", "MedGenLib")
AT_FILE_SCOPE = {"paths.ensureLibrary()"}
"""Calls at file scope: the library of a checkout is one folder up, and has to be found before it is imported."""
ENTRY = {
    "$schema": (str, True),
    "category": (str, True),
    "scm_url": (str, True),
    "scm_revision": (str, False),
    "scm_type": (str, False),
    "build_dependencies": (list, False),
    "build_subdirectory": (str, False),
    "dicom_support_rule": (str, False),
    "enabled": (bool, False),
    "tier": (int, False),
}
"""Keys of an entry (schema 1.0.2): type, and whether it has to be there."""
OWNER = """\
What only the owner of the repository can do:
- fill in Resources/extension.json, run this script with --write, and commit
- publish the repository at {homepage} with the topic {topic}
- publish a history below the limit: the first commit may hold the whole tree
- uncheck Wiki, Projects, Discussions, Releases and Packages where they are not used
- open a pull request to the index with MedGen.json, one for each branch (main, and each stable release)
- answer issues, and questions on the forum; for tier 5, grant commit rights to a core developer of Slicer"""


@dataclass(frozen=True)
class Project:
    """A checkout, and what `Resources/extension.json` says of it."""

    root: Path

    def text(self, name: str) -> str:
        """A file of the checkout; "" where it is missing."""
        path = self.root / name
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    @property
    def filled(self) -> dict:
        return json.loads(self.text("Resources/extension.json"))

    @property
    def entry(self) -> dict:
        return json.loads(self.text(f"{NAME}.json"))

    def metadata(self, key: str) -> str:
        """A variable of `CMakeLists.txt`, found as the reviewer's script finds it."""
        found = re.search(rf'set\s*\(EXTENSION_{key}\s*"([^"]+)"\)', self.text("CMakeLists.txt"))
        return found.group(1) if found else ""

    def copies(self) -> dict[str, str]:
        """File -> its text with the values of `Resources/extension.json`."""
        filled = self.filled
        raw = filled["homepage"].replace("//github.com/", "//raw.githubusercontent.com/") + f"/{filled['branch']}/"
        variables = {
            "HOMEPAGE": filled["homepage"],
            "CONTRIBUTORS": ", ".join(filled["contributors"]),
            "DESCRIPTION": filled["description"],
            "ICONURL": raw + filled["icon"],
            "SCREENSHOTURLS": " ".join(raw + name for name in filled["screenshots"]),
        }
        cmake = self.text("CMakeLists.txt")
        for key, value in variables.items():
            cmake = _replaced(rf'(set\s*\(EXTENSION_{key}\s*")[^"]*', value, cmake)
        entry = _replaced(r'("scm_url": ")[^"]*', filled["homepage"] + ".git", self.text(f"{NAME}.json"))
        entry = _replaced(r'("scm_revision": ")[^"]*', filled["branch"], entry)
        names = "".join(f"  - name: {json.dumps(name)}\n" for name in filled["contributors"])
        citation = _replaced(r"(authors:\n)(?:  - name: .*\n)*", names, self.text("CITATION.cff"))
        project = ", ".join(f"{{ name = {json.dumps(name)} }}" for name in filled["contributors"])
        return {
            "CMakeLists.txt": cmake,
            f"{NAME}.json": entry,
            "CITATION.cff": _replaced(r"(repository-code: ).*", json.dumps(filled["homepage"]), citation),
            "pyproject.toml": _replaced(r"(authors = \[).*(?=\])", project, self.text("pyproject.toml")),
            "docs/get-started/index.md": _replaced(
                r"(git clone )\S+", filled["homepage"] + ".git", self.text("docs/get-started/index.md")
            ),
        }


def _replaced(pattern: str, value: str, text: str) -> str:
    return re.sub(pattern, lambda found: found.group(1) + value, text, count=1)


def check_copies(project: Project) -> Iterator[str]:
    """What Resources/extension.json says is in every file that repeats it."""
    for name, text in project.copies().items():
        if text != project.text(name):
            yield f"{name} differs from Resources/extension.json; run this script with --write"


def check_entry(project: Project) -> Iterator[str]:
    """The entry follows the schema of the index, with LF line ends."""
    entry = project.entry
    yield from (f"unknown key {key}" for key in entry if key not in ENTRY)
    yield from (f"{key} is missing" for key, (_, needed) in ENTRY.items() if needed and key not in entry)
    yield from (
        f"{key} is not a {kind.__name__}"
        for key, (kind, _) in ENTRY.items()
        if not isinstance(entry.get(key, kind()), kind)
    )
    if entry.get("tier", 1) not in (1, 3, 5):
        yield "tier is not 1, 3 or 5; 2 and 4 are reserved"
    if entry.get("scm_type", "git") not in ("git", "local"):
        yield "scm_type is neither git nor local"
    if not all(isinstance(name, str) for name in entry.get("build_dependencies", [])):
        yield "build_dependencies are not strings"
    if not str(entry.get("$schema", "")).endswith("slicer-extension-catalog-entry-schema-v1.0.2.json#"):
        yield "$schema is not version 1.0.2"
    if b"\r" in (project.root / f"{NAME}.json").read_bytes():
        yield f"{NAME}.json has CR line ends"


def check_names(project: Project) -> Iterator[str]:
    """Names, address, category and dependencies are as the index wants them."""
    entry = project.entry
    url = str(entry.get("scm_url", ""))
    if not re.match(r"(https|git)://", url):
        yield "scm_url is neither https nor git"
    if not url.rstrip("/").rpartition("/")[2].startswith("Slicer"):
        yield "the name of the repository does not start with Slicer"
    if not re.search(rf"project\(\s*{NAME}\b", project.text("CMakeLists.txt")):
        yield f"the CMake project is not called {NAME}, as its entry is"
    if entry.get("category") != CATEGORY:
        yield f"the category is not {CATEGORY}"
    if project.metadata("DEPENDS").split() != entry.get("build_dependencies"):
        yield "EXTENSION_DEPENDS and build_dependencies differ"
    if project.filled["topic"] != "3d-slicer-extension":
        yield "the topic of the repository has to be 3d-slicer-extension"
    if not project.metadata("DESCRIPTION"):
        yield "CMakeLists.txt has no EXTENSION_DESCRIPTION"


def check_pictures(project: Project) -> Iterator[str]:
    """Icon and screenshots are PNG files of this repository; no picture is large."""
    for name in (project.filled["icon"], *project.filled["screenshots"]):
        path = project.root / name
        if not path.is_file() or path.read_bytes()[:8] != b"\x89PNG\r\n\x1a\n":
            yield f"{name} is no PNG file"
    for folder in ("Resources/Pictures", "Testing/slicer/screenshots"):
        for path in sorted((project.root / folder).glob("*.png")):
            if path.stat().st_size > LARGEST_PICTURE:
                yield f"{folder}/{path.name} is larger than 100 KiB"


def check_license(project: Project) -> Iterator[str]:
    """There is a license file, and the homepage names the license."""
    if not any((project.root / name).is_file() for name in LICENSES):
        yield "there is no license file"
    if "Apache-2.0" not in project.text("README.md"):
        yield "README.md does not name the license"


def check_homepage(project: Project) -> Iterator[str]:
    """The homepage has what a reader of the catalog looks for."""
    wanted = {
        "the name of the extension": r"^# MedGen",
        "a picture": r"!\[.*\]\(Resources/",
        "a sentence on the module": r"(?i)module \*MedGen\*",
        "how to cite it": r"(?im)^## .*how to cite",
        "a link to the tutorial": r"docs/tutorials/slicer\.md",
        "where the sample data are": r"Sample Data",
        "that results are not for diagnosis": r"(?i)not for diagnosis",
    }
    text = project.text("README.md")
    yield from (f"README.md lacks {what}" for what, pattern in wanted.items() if not re.search(pattern, text))


def check_size(project: Project) -> Iterator[str]:
    """A clone whose history is this tree is below the limit of the index."""
    tree, objects = cloneSize(project.root)
    if tree + objects > LARGEST_CLONE:
        yield f"the tree has {tree / MIB:.1f} MiB and its objects {objects / MIB:.1f} MiB, together above 100 MiB"


def check_imports(project: Project) -> Iterator[str]:
    """Nothing is imported at file scope by the module, or by what it imports, that Slicer does not bring."""
    waiting = sorted((project.root / NAME).rglob("*.py"))
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        for name in _importedAtFileScope(path):
            top = name.partition(".")[0]
            if top not in ALLOWED and top not in OURS:
                yield f"{path.relative_to(project.root)} imports {top} at file scope"
            for found in _filesOf(project.root, name) - seen if top == "MedGenLib" else ():
                seen.add(found)
                waiting.append(found)


def check_file_scope(project: Project) -> Iterator[str]:
    """No code runs when a file of the module is imported, but for definitions."""
    for path in sorted((project.root / NAME).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            runs = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
            if (runs or isinstance(node, ast.For | ast.While | ast.With)) and ast.unparse(node) not in AT_FILE_SCOPE:
                yield f"{path.relative_to(project.root)}:{node.lineno} runs code at file scope"


def check_torch(project: Project) -> Iterator[str]:
    """PyTorch is installed by its extension, never by pip."""
    if "PyTorch" not in project.entry.get("build_dependencies", []):
        yield "the entry does not depend on the extension PyTorch"
    for path in sorted((project.root / NAME).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not re.search(r"pip_(install|ensure)$", ast.unparse(node.func)):
                continue
            words = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
            if any(re.match(r"torch\b", str(word)) for word in words):
                yield f"{path.relative_to(project.root)}:{node.lineno} installs torch with pip"


def cloneSize(root: Path) -> tuple[int, int]:
    """Bytes of the tracked files, and of their objects in a repository that has only the newest commit."""
    names = _git(root, "ls-files", "-z").split("\0")
    tree = sum((root / name).stat().st_size for name in names if (root / name).is_file())
    return tree, int(_git(root, "rev-list", "--disk-usage", "--objects", "--no-walk", "HEAD"))


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True).stdout


def _importedAtFileScope(path: Path) -> Iterator[str]:
    """Names of the modules that a file imports outside of functions; those for type checkers only are left out."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting.extend(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def _filesOf(root: Path, name: str) -> set[Path]:
    """The files that run when a module is imported: its own, and those of the packages around it."""
    parts = name.split(".")
    places = [root.joinpath(*parts[: count + 1]) for count in range(len(parts))]
    candidates = [place / "__init__.py" for place in places] + [places[-1].with_suffix(".py")]
    return {path for path in candidates if path.is_file()}


CHECKS = (
    check_copies,
    check_entry,
    check_names,
    check_pictures,
    check_license,
    check_homepage,
    check_size,
    check_imports,
    check_file_scope,
    check_torch,
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check the extension as a reviewer of the Extensions Index does.")
    parser.add_argument("--write", action="store_true", help="copy Resources/extension.json into the other files")
    project = Project(ROOT)
    if parser.parse_args(arguments).write:
        for name, text in project.copies().items():
            (ROOT / name).write_text(text, encoding="utf-8", newline="\n")
    failed = 0
    for check in CHECKS:
        faults = list(check(project))
        failed += bool(faults)
        print(f"{'FAIL' if faults else 'ok  '}  {check.__doc__}")
        print("".join(f"      {fault}\n" for fault in faults), end="")
    tree, objects = cloneSize(ROOT)
    print(f"\nTree {tree / MIB:.1f} MiB, its objects {objects / MIB:.1f} MiB; the limit is 100 MiB for both.")
    print("\n" + OWNER.format(**project.filled))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
