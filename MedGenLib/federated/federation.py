"""What the sites of a federation agree on: a file of the coordinator, copied into the folder of each site."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from MedGenLib.errors import InputError, PackageError
from MedGenLib.io.atomic import write_json
from MedGenLib.packages.typed import read, setting
from MedGenLib.training.config import read_config
from MedGenLib.training.recipes import RECIPES

if TYPE_CHECKING:
    from MedGenLib.trainer.run import AnyPlan

FILE = "federation.json"
PARTS = {"latent-flow": "run/autoencoder"}
"""Recipe -> the folder of a site in which it finds what another recipe has trained."""
NAME = re.compile(r"(?!server$|coordinator$)[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True, kw_only=True)
class Federation:
    """A federated training.

    Attributes
    ----------
    recipe, config: recipe of the trainer, and its configuration, or a plan of `medgen plan`: the object, or its path.
    sites, fewest: names of the sites, and how many of them a round needs.
    rounds, steps: rounds, and steps of each site in a round.
    metric, better: figure of the validation by which the best round is chosen, the mean of all whose name begins so.
    mu: factor of the proximal term of FedProx; 0 is FedAvg.
    clip, noise, delta: largest norm of a site's update, the standard deviation of its noise relative to ``clip``, and
        the delta of the stated epsilon.
    wait: seconds for which the server waits for a site that is missing, if enough of them are there.
    files: other files or folders of the recipe, as {place in the folder of a site: path}.
    """

    recipe: str
    config: Mapping[str, Any]
    sites: tuple[str, ...]
    fewest: int = setting(2, low=1)
    rounds: int = setting(low=1)
    steps: int = setting(low=1)
    metric: str
    better: Literal["higher", "lower"]
    mu: float = setting(0.0, low=0)
    clip: float | None = setting(None, above=0)
    noise: float = setting(0.0, low=0)
    delta: float = setting(1e-5, above=0, high=0.5)
    wait: float = setting(600.0, low=0)
    files: Mapping[str, str] = field(default_factory=dict)

    def check(self) -> None:
        """Raise InputError for choices that do not fit together."""
        RECIPES.require(self.recipe)
        if wrong := [name for name in self.sites if not NAME.fullmatch(name)]:
            raise InputError(
                f"'{wrong[0]}' cannot name a site; give small letters, digits and hyphens, such as site-a."
            )
        if len(set(self.sites)) < max(2, len(self.sites)) or self.fewest > len(self.sites):
            raise InputError(f"A federation needs two sites or more, each named once, and {self.fewest} for a round.")
        if self.noise and self.clip is None:
            raise InputError("Noise protects nothing unless the updates are limited; give clip, too.")
        if plan := self.plan:
            if getattr(plan, "align", False):
                raise InputError("Sites cannot align their pairs before a federation; make the plan without align.")
            known = plan.stages
        else:
            known = self.config.get("optimisation", ())
        if self.recipe not in known:
            raise InputError(f"The configuration is for {' and '.join(known)}, not for the recipe {self.recipe}.")

    @cached_property
    def plan(self) -> AnyPlan | None:
        """The plan of `medgen plan`, whose data are at the sites; None for the configuration of a recipe."""
        if "dataset" not in self.config:
            return None
        from MedGenLib.trainer.run import plan_from

        return plan_from(self.config, "plan")

    def set_up(self, home: Path) -> None:
        """Write the federation and its files into the folder of a site or the server."""
        for target, source in self.files.items():
            (home / target).parent.mkdir(parents=True, exist_ok=True)
            try:
                (shutil.copytree if Path(source).is_dir() else shutil.copyfile)(source, home / target)
            except OSError as error:
                raise InputError(f"The file {source} of the federation cannot be copied: {error.strerror}.") from None
        write_json(
            home / FILE, {key: value for key, value in asdict(self).items() if value is not None} | {"files": {}}
        )


def read_federation(path: Path) -> Federation:
    """The federation of a file, or of a folder; with the text of the license in place of its path.

    Raises InputError for a file that is missing or wrong.
    """
    (data, folder), section = _read(path / FILE if path.is_dir() else path), {}
    if isinstance(data.get("config"), str):
        data["config"], own = _read(folder / data["config"])
        section = data["config"].get("package", {})
        if "dataset" in data["config"]:  # the sites have people and folders of their own
            data["config"] |= {key: ["nobody"] for key in ("held_out", "validation") if key in data["config"]}
            data["config"]["dataset"] = "DATASET"
    try:
        if section and "license_file" in section:
            section["license_text"] = (own / section.pop("license_file")).read_text(encoding="utf-8")
        federation = read(Federation, data, FILE)
    except (PackageError, OSError) as error:
        raise InputError(f"The federation {path} cannot be used: {error}") from None
    federation.check()
    if not path.is_dir() and (place := PARTS.get(federation.recipe)) and place not in federation.files:
        raise InputError(f'{federation.recipe} needs the result of an earlier recipe: "files": {{"{place}": PATH}}.')
    federation.files.update({target: str(folder / source) for target, source in federation.files.items()})
    return federation


def _read(path: Path) -> tuple[dict[str, Any], Path]:
    data = read_config(path)
    return {key: value for key, value in data.items() if key not in ("folder", "file")}, path.resolve().parent


def require_nvflare() -> None:
    """Raise InputError if NVFlare is not installed."""
    if find_spec("nvflare") is None:
        raise InputError("Federated training needs the package nvflare: pip install medgen[federated].")
