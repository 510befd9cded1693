"""What still breaks a rule of the architecture: entries in allowance.json that may only shrink.

    python Testing/library/architecture/allowance.py    # takes out what is no longer needed

A rule is a function that returns its violations, entry -> count; an entry without violation fails
the tests as a new violation does. The command never adds an entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

PATH = Path(__file__).with_name("allowance.json")

Rules = Mapping[str, Callable[[], Mapping[str, int]]]


def read() -> dict[str, dict[str, int]]:
    return json.loads(PATH.read_text(encoding="utf-8"))


def changes(kind: str, found: Mapping[str, int]) -> list[str]:
    """What differs from the allowance, a sentence each."""
    allowed = read().get(kind, {})
    sentences = []
    for entry in sorted(found.keys() | allowed.keys()):
        now, then = found.get(entry, 0), allowed.get(entry, 0)
        if now > then:
            sentences.append(f"New violation: {entry} ({now}, allowed {then}).")
        elif now < then:
            todo = f"lower this entry to {now}" if now else "remove this entry"
            sentences.append(f"Fixed: {entry} ({now}, allowed {then}); {todo} (run allowance.py).")
    return sentences


def require(kind: str, found: Mapping[str, int]) -> None:
    """AssertionError unless exactly the allowance was found."""
    sentences = changes(kind, found)
    assert not sentences, "\n".join([f"{kind}:", *sentences])


def shrink(rules: Rules) -> None:
    """Lowers every entry to what is found, and removes those that are no longer needed."""
    allowed = read()
    for kind, measure in rules.items():
        found = measure()
        lower = {entry: min(count, found.get(entry, 0)) for entry, count in allowed.get(kind, {}).items()}
        allowed[kind] = {entry: count for entry, count in lower.items() if count}
        print(f"{kind}: {len(allowed[kind])} entries, {sum(allowed[kind].values())} in all")
    PATH.write_text(json.dumps(allowed, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    import test_imports
    import test_size
    import test_style
    import test_voice

    shrink({**test_imports.RULES, **test_size.RULES, **test_style.RULES, **test_voice.RULES})
