"""The work of the server: it checks and averages the updates, and remembers every round in its folder."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedGenLib.errors import InputError, PackageError
from MedGenLib.federated.federation import read_federation
from MedGenLib.federated.updates import Weights, averaged, epsilon, from_bytes, problem_of, to_bytes
from MedGenLib.io.atomic import hidden_folder, replace_folder, replacing, write_json
from MedGenLib.packages.rules import METADATA

STATE, GLOBAL, BEST, RESULT = "state.json", "global.safetensors", "best.safetensors", "result"
SAME = 0.02
"""Relative difference of a package's weights from those of its round: they are stored in 8 bits."""
Answers = Mapping[str, Mapping[str, Any]]
"""Site -> its answer; ``error`` in it is a sentence."""


@dataclass(frozen=True)
class Task:
    """What the server asks some sites: `start`, `train`, `measure` or `export`, after ``number`` rounds."""

    name: str
    number: int
    weights: bytes
    sites: tuple[str, ...]


def read_state(home: Path) -> dict[str, Any]:
    """The state of a federation in the folder of its server."""
    path = home / STATE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"sites": {}, "rounds": [], "log": []}


class Coordinator:
    """A federation in a folder; after an interruption it goes on from its last whole round.

    >>> while task := server.next(sites):                       # doctest: +SKIP
    ...     server.take(task, {site: ask(site, task) for site in task.sites})
    """

    def __init__(self, home: Path) -> None:
        self.home, self.federation, self.state = home, read_federation(home), read_state(home)

    def next(self, sites: Sequence[str]) -> Task | None:
        """The next task for the sites that are there; None if the federation has ended."""
        rounds, known = self.state["rounds"], self.state["sites"]
        there = tuple(site for site in sites if known.get(site, {}).get("cases"))
        if self.state.get("ended"):
            return None
        if unknown := tuple(site for site in sites if site not in known):
            return Task("start", 0, b"", unknown)
        if len(rounds) < self.federation.rounds:
            return Task("train", len(rounds), self._read(GLOBAL), there)
        if rounds[-1]["value"] is None:
            return Task("measure", len(rounds), self._read(GLOBAL), there)
        largest = max(there, key=lambda site: (known[site]["cases"], site))
        return Task("export", self.state["best"]["round"], self._read(BEST), (largest,))

    def take(self, task: Task, answers: Answers) -> None:
        """Take the answers to a task. Raises InputError if too few can be used, with which the federation ends."""
        try:
            if task.number and task.name != "export":
                self._measure(answers)
            if task.name != "measure":
                {"start": self._start, "train": self._train, "export": self._export}[task.name](task, answers)
        except InputError as error:
            self.state["ended"] = str(error)
            raise
        finally:
            write_json(self.home / STATE, self.state)

    def _usable(self, task: Task, answers: Answers, key: str, count: str, known: Weights) -> dict[str, Weights]:
        """The weights of the sites whose answer has them and a count, which is kept; others are named in the log."""
        found: dict[str, Weights] = {}
        for site in sorted(task.sites):
            answer, kept = answers.get(site, {"error": "it did not answer"}), self.state["sites"].setdefault(site, {})
            try:
                if (
                    "error" in answer
                    or not isinstance(answer.get(key), bytes)
                    or not isinstance(answer.get(count), int)
                ):
                    raise InputError(str(answer.get("error", f"its answer has no {key}")))
                weights = from_bytes(answer[key])
                known = known or weights
                if problem := problem_of(weights, known) or ("" if answer[count] > 0 else f"it has no {count}"):
                    raise InputError(problem)
                found[site], kept[count] = weights, answer[count]
            except InputError as error:
                self._say(f"The {task.name} of round {task.number + 1} goes on without the site {site}: {error}")
        there = len(found) if task.name == "train" else sum("cases" in item for item in self.state["sites"].values())
        if there < self.federation.fewest:
            why = " ".join(self.state["log"][len(found) - len(task.sites) :] if len(found) < len(task.sites) else [])
            raise InputError(f"Only {there} of {self.federation.fewest} sites can be used. {why}".strip())
        return found

    def _start(self, task: Task, answers: Answers) -> None:
        begun = (self.home / GLOBAL).is_file()
        found = self._usable(task, answers, "weights", "cases", from_bytes(self._read(GLOBAL)) if begun else {})
        if not begun:
            self._write(GLOBAL, to_bytes(next(iter(found.values()))))

    def _train(self, task: Task, answers: Answers) -> None:
        weights = from_bytes(self._read(GLOBAL))
        updates = self._usable(task, answers, "update", "releases", weights)
        data = to_bytes(averaged(weights, updates, {site: self.state["sites"][site]["cases"] for site in updates}))
        self._write(GLOBAL, data)
        entry = {"round": task.number + 1, "sha256": hashlib.sha256(data).hexdigest(), "sites": sorted(updates)}
        self.state["rounds"].append({**entry, "metrics": {}, "value": None})
        self._say(f"Round {task.number + 1} of {self.federation.rounds}: {', '.join(updates)}")

    def _measure(self, answers: Answers) -> None:
        """The figures of the last round, which the sites measure before they go on; the best weights are kept."""
        entry, key, values = self.state["rounds"][-1], self.federation.metric, {}
        for site in sorted(answers):
            given = answers[site].get("metrics")
            entry["metrics"][site] = metrics = {
                str(name): float(value)
                for name, value in (given.items() if isinstance(given, dict) else ())
                if isinstance(value, float) and math.isfinite(value)
            }
            if chosen := [value for name, value in metrics.items() if name.startswith(key)]:
                values[site] = sum(chosen) / len(chosen)
        if not values:
            names = sorted({name for metrics in entry["metrics"].values() for name in metrics})
            raise InputError(
                f"No site measured {key}; the best round can be chosen by {', '.join(names) or 'nothing'}."
            )
        cases = {site: self.state["sites"][site]["cases"] for site in values}
        entry["value"] = sum(cases[site] * values[site] for site in values) / sum(cases.values())
        best = self.state.get("best")
        if best is None or (entry["value"] > best["value"]) == (self.federation.better == "higher"):
            self.state["best"] = {"round": entry["round"], "value": entry["value"]}
            self._write(BEST, self._read(GLOBAL))
        each = ", ".join(f"{site} {value:.4g}" for site, value in values.items())
        self._say(f"{key} after round {entry['round']}: {entry['value']:.4g} ({each})")

    def _export(self, task: Task, answers: Answers) -> None:
        """Write what the site exported, after a check, with the provenance."""
        from MedGenLib.packages.archive import unpack

        site, answer = task.sites[0], answers[task.sites[0]]
        if not isinstance(answer.get("archive"), bytes):
            raise InputError(f"The site {site} could not export the model: {answer.get('error', 'it sent none')}")
        with hidden_folder(self.home) as folder:
            (folder / "archive.zip").write_bytes(answer["archive"])
            try:
                unpack(folder / "archive.zip", folder / "files", f"of the site {site}")
                name = self._sealed(folder / "files")
            except (PackageError, KeyError, TypeError, ValueError) as error:
                raise InputError(f"The export of the site {site} cannot be used: {error}") from error
            replace_folder(folder / "files", self.home / RESULT / name)
        self.state |= {"ended": "done", "result": str(self.home / RESULT / name)}

    def _sealed(self, folder: Path) -> str:
        """Add the provenance; check that a package is one and has the weights of the best round. Returns its name."""
        from MedGenLib.packages.export import seal
        from MedGenLib.packages.weights import load_weights

        if not (folder / METADATA).is_file():
            write_json(folder / "federation.json", self.provenance())
            return self.federation.recipe
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        metadata["medgen"]["training"]["federation"] = self.provenance()
        write_json(folder / METADATA, metadata)
        manifest = seal(folder)
        stored = {f"{role}.{name}": v for role in manifest.networks for name, v in load_weights(manifest, role).items()}
        best = from_bytes(self._read(BEST))
        best = {name: value for name, value in best.items() if name.split(".")[0] in manifest.networks}
        if not best:
            raise PackageError("it has none of the networks that were trained.")
        for name, value in best.items():
            found = stored.get(name)
            if (
                found is None
                or found.shape != value.shape
                or (found.float() - value).norm() > SAME * value.norm() + 1e-6
            ):
                raise PackageError(f"it has other weights than round {self.state['best']['round']} in {name}.")
        return manifest.name

    def provenance(self) -> dict[str, Any]:
        """What the package states about its federation; ``epsilon`` is that of a site's updates."""
        own = self.federation
        sites: dict[str, dict[str, float]] = {}
        for site, item in self.state["sites"].items():
            sites[site] = {"cases": item.get("cases", 0)}
            if own.noise:
                sites[site]["epsilon"] = round(epsilon(own.noise, item.get("releases", 0), own.delta), 3)
        return {
            "algorithm": f"FedProx, mu {own.mu:g}" if own.mu else "FedAvg",
            "steps_per_round": own.steps,
            "privacy": {"clip": own.clip, "noise": own.noise, "delta": own.delta},
            "best": {**self.state["best"], "metric": own.metric, "better": own.better},
            "sites": sites,
            "rounds": self.state["rounds"],
        }

    def _say(self, sentence: str) -> None:
        self.state["log"].append(sentence.rstrip(".") + ".")

    def _read(self, name: str) -> bytes:
        return (self.home / name).read_bytes()

    def _write(self, name: str, data: bytes) -> None:
        with replacing(self.home / name) as temporary:
            temporary.write_bytes(data)
