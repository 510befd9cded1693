"""Full check of a package on disk: files, JSON, checksums, weights. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from MedGenLib.errors import PackageError
from MedGenLib.packages import rules
from MedGenLib.packages.catalogue import broken, catalogue
from MedGenLib.packages.manifest import Manifest, load_manifest
from MedGenLib.packages.weights import sha256


def verify(package: Manifest | str | Path) -> list[str]:
    """All problems of a package, one sentence each; empty if it is valid.

    The package is read from disk, independent of the manifest in memory.
    """
    folder = Path(package.folder if isinstance(package, Manifest) else package)
    try:
        files = rules.list_files(folder)
        if problem := rules.listing_problem(files):
            return [f"The package {folder} is refused: {problem}."]
        for name in files:
            if name.endswith(".json"):
                rules.read_json(folder / name, name)
        manifest = load_manifest(folder)
    except PackageError as error:
        return [str(error)]
    missing = [f"The package {folder} has no {name}." for name in rules.REQUIRED_FILES if name not in files]
    weights = (_weights_problem(manifest.folder / name) for name in files if name.endswith(".safetensors"))
    return [*missing, *_checksums(manifest, files), *filter(None, weights)]


def verify_all() -> dict[str, list[str]]:
    """The problems of each installed package, by name; broken ones by folder name."""
    problems = {manifest.name: verify(manifest) for manifest in catalogue()}
    return problems | {package.folder.name: [package.reason] for package in broken()}


def require_sound(folder: Path, called: str | Path | None = None) -> Manifest:
    """The manifest of a package without problems.

    `called` is the package's name in error messages, if `folder` is a private copy of it. Raises PackageError for the
    first problem, and the number of others.
    """
    problems = [text.replace(str(folder), str(called or folder)) for text in verify(folder)]
    if len(problems) > 1:
        more = len(problems) - 1
        noun = "problem" if more == 1 else "problems"
        raise PackageError(f"{problems[0].rstrip('.')} (and {more} more {noun}).")
    if problems:
        raise PackageError(problems[0])
    return load_manifest(folder)


def _checksums(manifest: Manifest, files: dict[str, int]) -> list[str]:
    problems = []
    for name, expected in manifest.checksums.items():
        if name not in files:
            problems.append(f"The model '{manifest.name}' lacks the file {name} that it lists.")
        elif sha256(manifest.folder / name) != expected:
            problems.append(
                f"The checksum of {manifest.folder / name} is wrong, so the file is damaged or "
                "was changed; install the model again."
            )
    for name in files:
        if name not in manifest.checksums and name != rules.METADATA:
            problems.append(f"The model '{manifest.name}' has no checksum for its file {name}.")
    return problems


def _weights_problem(path: Path) -> str | None:
    """Check the header, to distinguish safetensors from pickles and truncated files."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as tensors:
            if not tensors.keys():
                return f"The weights {path} have no tensor."
    except SafetensorError as error:
        kind = "a pickle, which can run code," if is_pickle(path) else "damaged"
        return f"The weights {path} are {kind} and not safetensors ({error})."
    return None


def is_pickle(path: Path) -> bool:
    """Whether the first bytes are those of a pickle of protocol 2 to 5 or of a zip of torch.save."""
    with path.open("rb") as stream:
        start = stream.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")
