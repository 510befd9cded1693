"""The work of one site: its data are read here, and only weights, numbers of cases and figures leave it."""

from __future__ import annotations

import copy
import json
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from MedGenLib.errors import InputError
from MedGenLib.federated.federation import Federation, read_federation
from MedGenLib.federated.updates import Weights, from_bytes, protect, put_weights, to_bytes, trained_weights
from MedGenLib.io.atomic import replacing, write_json
from MedGenLib.packages.rules import read_json
from MedGenLib.pipelines.loading import bfloat16_pays
from MedGenLib.progress import ProgressCallback
from MedGenLib.training import thread_count
from MedGenLib.training.loop import CHECKPOINT, LARGE_SEED, Draw, Log, Objective, OptimizationSettings, Trainer
from MedGenLib.training.recipes import RECIPES
from MedGenLib.training.splits import hold_out

if TYPE_CHECKING:
    from MedGenLib.trainer.run import AnyPlan

FILE, RUN, RELEASES = "site.json", "run", "releases.json"
COUNTED = ("cases", "crops", "scans", "people", "values")
"""Attributes in which data readers list what they train on."""


@dataclass(frozen=True)
class RoundSettings(OptimizationSettings):
    """The settings of one round: the learning rate follows ``total``, the steps of all rounds."""

    total: int = 0

    def rate(self, step: int) -> float:
        return OptimizationSettings.rate(replace(self, steps=self.total), step)


def proximal(objective: Objective, networks: Mapping[str, torch.nn.Module], mu: float) -> Objective:
    """The objective and ``mu / 2`` times the squared distance from the present weights.

    FedProx (Li et al. 2020, MLSys, equation 2): sites with other data drift apart less.
    """
    own = trained_weights({role: networks[role] for role in objective.networks})
    start = {name: value.detach().clone() for name, value in own.items()}

    def loss(batch: dict[str, Tensor], draw: Draw) -> tuple[Tensor, dict[str, float]]:
        value, parts = objective.loss(batch, draw)
        distance = mu / 2 * sum((own[name] - start[name]).square().sum() for name in own)
        return value + distance, {**parts, "proximal": float(distance.detach())}

    return replace(objective, loss=loss)


def require_data(data: Path) -> None:
    """Raise InputError for data that do not exist."""
    if not data.exists():
        raise InputError(f"The data {data} do not exist; give the folder of this site's cases.")


def write_site(home: Path, data: Path, device: str | None, threads: int | None) -> None:
    """Write what only the site itself knows. Raises InputError for data that do not exist."""
    require_data(data)
    home.mkdir(parents=True, exist_ok=True)
    write_json(home / FILE, {"data": str(data.resolve()), "device": device or "auto", "threads": threads})


class Site:
    """A site of a federation; ``home`` is its folder, with the federation and the file of `write_site`."""

    progress: ProgressCallback | None = None

    def __init__(self, home: Path) -> None:
        from MedGenLib.devices import pick_device

        self.federation, self.home, self.run = read_federation(home), home, home / RUN
        self.local = json.loads((home / FILE).read_text(encoding="utf-8"))
        self.device = pick_device(self.local["device"])
        self.out = self.run / self.federation.recipe
        self.config = site_config(self.federation, Path(self.local["data"]), home)

    @cached_property
    def recipe(self) -> Any:
        return self._made(self.out)

    def _made(self, out: Path) -> Any:
        """The recipe with this site's data; its networks begin equal at all sites, from the seed."""
        out.mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(self.config)
        config.setdefault("package", {})["federated"] = True
        torch.manual_seed(config.get("seed", 0))
        try:
            made = RECIPES[self.federation.recipe](config, out)
        except (KeyError, TypeError) as error:
            raise InputError(f"The data do not fit the recipe {self.federation.recipe}: {error}.") from error
        made.networks = {role: net.to(self.device) for role, net in made.networks.items()}
        return made

    def work(self, task: str, number: int, weights: bytes) -> dict[str, Any]:
        """Do a task of the server: `start`, `train`, `measure` or `export`, after ``number`` rounds.

        Raises InputError for data or weights that cannot be used.
        """
        rounds = self.federation.rounds
        if number > rounds - (task == "train"):
            raise InputError(f"The server asks for round {number + 1}, but the sites agreed on {rounds}.")
        with thread_count(self.local["threads"]):
            if task == "start":
                return {"cases": self._cases(), "weights": to_bytes(trained_weights(self.recipe.networks))}
            recipe, given = self.recipe if task != "export" else self._exporting(), from_bytes(weights)
            put_weights(recipe.networks, given)
            answer: dict[str, Any] = {"metrics": self._measured(recipe, number)} if number else {}
            if task == "export":
                return answer | {"archive": self._export(recipe, number)}
            return answer | self._trained(given, number) if task == "train" else answer

    def _cases(self) -> int:
        reader = getattr(self.recipe, "patches", None) or self.recipe.data
        return next((len(getattr(reader, name)) for name in COUNTED if hasattr(reader, name)), 0)

    def _measured(self, recipe: Any, number: int) -> dict[str, float]:
        step, log = number * self.federation.steps, Log(self.out if recipe is self.recipe else self.run / "export")
        try:
            values = {name: float(value) for name, value in recipe.validate(recipe.networks, step, log).items()}
            log.scalars("validation", values, step)
        finally:
            log.close()
        return values

    def _trained(self, weights: Weights, number: int) -> dict[str, Any]:
        """Train the steps of round ``number`` (from 0); the optimizer goes on from the site's last round."""
        steps, recipe, mu = self.federation.steps, self.recipe, self.federation.mu
        total, base = self.federation.rounds * steps, dict(self.config["optimisation"][self.federation.recipe])
        # Equal draws at all sites would add up the noise of a diffusion instead of averaging it.
        base["seed"] = LARGE_SEED + (base.get("seed", 0) + zlib.crc32(self.home.name.encode())) % 2**31
        base |= {"steps": (number + 1) * steps, "checkpoint_every": total + 1, "validate_every": total + 1}
        settings = RoundSettings(**base, total=total)
        self._begin(number * steps)
        local = SimpleNamespace(networks=recipe.networks, batch=recipe.batch)
        local.objectives = [proximal(item, recipe.networks, mu) if mu else item for item in recipe.objectives]
        local.validate, local.export = lambda *_: {}, lambda *_: self.out
        fast = settings.precision == "bf16" or (settings.precision == "auto" and bfloat16_pays(self.device))
        Trainer(local, settings, self.out, self.device, fast, self.progress, start=number * steps).run()
        now = trained_weights(recipe.networks)
        update = {name: now[name].detach().cpu() - weights[name] for name in weights}
        update = protect(update, self.federation.clip, self.federation.noise)
        return {"update": to_bytes(update), "releases": self._released()}

    def _begin(self, step: int) -> None:
        """Let the trainer go on at a step with the recipe's weights, after whatever this site did before."""
        path = self.out / CHECKPOINT
        if path.is_file():
            state = torch.load(path, map_location="cpu", weights_only=True)
            networks = {role: net.state_dict() for role, net in self.recipe.networks.items()}
            with replacing(path) as temporary:
                torch.save({**state, "step": step, "networks": networks}, temporary)

    def _released(self) -> int:
        """Count an update before it leaves the site, also one of a round that is repeated."""
        path = self.run / RELEASES
        count = 1 + (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else 0)
        write_json(path, count)
        return count

    def _exporting(self) -> Any:
        """A recipe in an empty folder, so that nothing of this site's own training is exported."""
        shutil.rmtree(self.run / "export", ignore_errors=True)
        return self._made(self.run / "export")

    def _export(self, recipe: Any, number: int) -> bytes:
        """The export as a zip file; it names no case of the site."""
        networks = {role: net.eval() for role, net in recipe.networks.items()}
        exported = recipe.export(networks, number * self.federation.steps, self.run / "export")
        folder = exported if exported.is_dir() else self.run / "export" / "files"
        if exported.is_file():
            folder.mkdir()
            for path in (exported, exported.with_suffix(".json")):
                shutil.copy(path, folder)
        return Path(shutil.make_archive(str(self.run / "export" / "archive"), "zip", folder)).read_bytes()


def site_config(federation: Federation, data: Path, home: Path) -> dict[str, Any]:
    """The shared configuration with the data of a site: a folder, or a JSON file with the section ``data``.

    With a plan of `medgen plan`, ``data`` is a data set, of whose people a fifth is held out.
    """
    if plan := federation.plan:
        return _planned(plan, data, home / RUN / "cache")
    shared = federation.config
    own = {"folder": str(data)} if data.is_dir() else read_json(data, str(data))
    return {**copy.deepcopy(dict(shared)), "folder": str(home), "data": {**shared.get("data", {}), **own}}


def _planned(plan: AnyPlan, data: Path, cache: Path) -> dict[str, Any]:
    from MedGenLib.trainer.class_plan import ClassifierPlan
    from MedGenLib.trainer.run import Choices

    own = {key: getattr(plan, key, None) for key in ("channel", "source", "target", "recipe", "uncertain")}
    task = "translate" if getattr(plan, "task", None) == "translate" else None
    cases = Choices(**own, task=task).data(data).cases
    people = {case.subject for case in cases}
    count = max(1, min(40, round(len(people) / 5)))
    sides: dict[str, Any] = {"held_out": hold_out(people, count)}
    if isinstance(plan, ClassifierPlan):
        sides["validation"] = hold_out(people - set(sides["held_out"]), count)
    elif hasattr(plan, "validation"):  # chooses weights, which the server does here
        sides["validation"] = None
    return replace(plan, **sides).config(cases, cache)
