"""The models that the panel offers, read without starting the worker."""

from slicer.i18n import tr as _

from MedGenLib.packages.catalogue import light_catalogue, translators
from MedGenLib.packages.manifest import Manifest

QUALITIES = ("draft", "normal", "best")


class Models:
    """The installed models; `reload` after one was added or removed."""

    def __init__(self) -> None:
        self.manifests: list[Manifest] = []
        self.reload()

    def reload(self) -> None:
        """Read the manifests again."""
        self.manifests = list(light_catalogue())

    def named(self, name: str) -> Manifest | None:
        """The model of that name, None where it is not installed."""
        return next((manifest for manifest in self.manifests if manifest.name == name), None)

    def withoutMask(self) -> list[Manifest]:
        """Models that make an image of their own grid; those that need a size are left to the command line."""
        return [m for m in self.manifests if m.task == "generate" and m.settings.grid is not None]

    def generators(self) -> list[Manifest]:
        """Models that make an image from labels."""
        return [
            manifest for manifest in self.manifests if manifest.task == "generate" and manifest.input.kind == "labels"
        ]

    def translators(self, target: str = "") -> list[Manifest]:
        """Models that translate an image, to `target` where it is given."""
        return [manifest for manifest in translators(self.manifests) if target in ("", manifest.output.modality)]

    def targets(self) -> list[str]:
        """Modalities that some translator makes, in the order of the models."""
        return list(dict.fromkeys(manifest.output.modality for manifest in self.translators()))


def modelItems(manifests: list[Manifest], wanted: str) -> list[tuple[str, str, str]]:
    """Combo box items; a model that was chosen but is not installed stays visible."""
    items = [
        (
            titleOf(manifest, manifests),
            manifest.name,
            _("{name}: {description}").format(name=manifest.name, description=manifest.description),
        )
        for manifest in manifests
    ]
    if wanted and all(wanted != manifest.name for manifest in manifests):
        items.append((_("{name} (not installed)").format(name=wanted), wanted, ""))
    return items


def titleOf(manifest: Manifest, among: list[Manifest]) -> str:
    """The name of a model for people, with its identifier where another one has the same name."""
    isUnique = sum(other.title == manifest.title for other in among) == 1
    return manifest.title if isUnique else _("{title} ({name})").format(title=manifest.title, name=manifest.name)


def modalityText(modality: str) -> str:
    """A modality in the words of a radiologist."""
    return {
        "T1w": _("T1-weighted MR"),
        "T2w": _("T2-weighted MR"),
        "PDw": _("PD-weighted MR"),
        "FLAIR": _("FLAIR MR"),
    }.get(modality, modality)


def qualityText(name: str) -> str:
    """A preset in words."""
    return {"draft": _("Draft"), "normal": _("Normal"), "best": _("Best")}.get(name, name)


def qualityTip(name: str, manifest: Manifest | None) -> str:
    """What a preset costs: its number of steps where it has one."""
    presets = manifest.sampler.presets if manifest is not None and manifest.sampler else {}
    steps = presets[name].steps if name in presets else None
    return _("{steps} steps of the model").format(steps=steps) if steps else ""
