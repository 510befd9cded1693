"""The table of a command's options for the documentation."""

from MedGenLib.options.declarations import COMMANDS
from MedGenLib.options.option import REQUIRED
from MedGenLib.options.surfaces import DEFAULTS, SURFACES, missing, of


def table(command: str) -> str:
    """The options of a command as a Markdown table, followed by the differences of each surface."""
    lines = ["| Python | Command line | Slicer | Type | Default | Range | Description |", "|---" * 7 + "|"]
    slicer = {option.name: f"`{name}`" for name, option in of(command, "slicer").items()}
    line = {option.name: option for option in of(command, "cli").values()}
    for name, option in COMMANDS[command].items():
        default = "" if option.default is None else f"`{option.default!r}`"
        cells = (
            "" if name in missing(command, "python") else f"`{name}`",
            ", ".join(f"`{flag}`" for flag in line[name].flags) if name in line else "",
            slicer.get(name, ""),
            f"`{option.type_text}`",
            "required" if option.default is REQUIRED else default,
            option.range_text,
            f"{option.help} ({option.term})" if option.term else option.help,
        )
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    for surface in SURFACES:
        others = DEFAULTS.get((command, surface), {}).items()
        lines += [""] * bool(others)
        lines += [
            f"- In {surface}, `{name}` is {default!r} by default ({reason})." for name, (default, reason) in others
        ]
        reasons: dict[str, list[str]] = {}
        for name, reason in missing(command, surface).items():
            reasons.setdefault(reason, []).append(f"`{name}`")
        lines += [""] * bool(reasons)
        lines += [f"- Not in {surface}: {', '.join(names)} ({reason})." for reason, names in reasons.items()]
    return "\n".join(lines) + "\n"
