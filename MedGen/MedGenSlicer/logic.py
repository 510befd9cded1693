"""What the panel's buttons and Slicer's Python console call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from MedGenLib.errors import InputError, LicenseError, PackageError
from MedGenSlicer.engine.background import Background
from MedGenSlicer.engine.dependencies import Dependencies
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.synthesis import Run, RunParameters, SynthesisRun
from MedGenSlicer.nodes import reading as nodes
from MedGenSlicer.results import volumes as results

if TYPE_CHECKING:
    from MedGenLib.findings import Finding
    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.pipelines.estimate import RunPlan
    from MedGenSlicer.editing.live import LiveEdit

DEFAULT_MODEL = "ct-tissue"


class MedGenLogic(ScriptedLoadableModuleLogic):
    """Synthetic CT and MR volumes from masks, and MR <-> CT translation.

    Every call blocks until the result is in the scene, while Slicer stays usable; `wait=False` returns a `Run` at
    once, and `onDone(run)` is called when it has ended. Input nodes are never changed. Errors are the exceptions of
    MedGenLib.errors; each is one plain sentence. What is wrong with the input or the choices is raised by the call
    itself, whether it waits or not; what happens later is in `run.error`.

    Example (Slicer's Python console)
    -------
    >>> logic = slicer.util.getModuleLogic("MedGen")                                  # doctest: +SKIP
    >>> mask = slicer.util.getNode("Segmentation")                                    # doctest: +SKIP
    >>> ct = logic.generate(mask, model="ct-tissue", seed=7)                          # doctest: +SKIP
    >>> mr = logic.translate(ct, "T1w", acceptLicense=True)                           # doctest: +SKIP
    >>> run = logic.generate(mask, seed=8, wait=False, onDone=lambda run: print(run.state, run.node))   # doctest: +SKIP
    >>> run.cancel()                                                                  # doctest: +SKIP

    Attributes
    ----------
    engine: the worker process; starts with the first run.
    dependencies: what has to be installed.
    currentRun: the run that is on, or the last one.
    currentEdit: the live editing that is on, or the last one.
    """

    def __init__(self, engine: Engine | None = None, dependencies: Dependencies | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.engine = engine or Engine()
        self.dependencies = dependencies or Dependencies(self.engine)
        self.currentRun: Run | None = None
        self.currentEdit: LiveEdit | None = None
        self._lastGeneration: SynthesisRun | None = None

    def getParameterNode(self):
        """The choices of the panel, saved with the scene (see `parameters.py`)."""
        from MedGenSlicer.parameters import MedGenParameterNode

        return MedGenParameterNode(super().getParameterNode())

    def generate(
        self,
        maskNode,
        model: str | None = None,
        seed: int | None = None,
        preset: str = "normal",
        device: str = "auto",
        outputNode=None,
        wait: bool = True,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
        *,
        samples: int = 1,
        mapping: Any = None,
        fill: int | str | None = None,
        noiseHU: float | None = None,
        style=None,
        guidance: float | None = None,
        classifierGuidance: float = 0.0,
        spread: bool = False,
        acceptLicense: bool = False,
    ):
        """Make a synthetic volume that follows a mask.

        Parameters
        ----------
        maskNode: vtkMRMLSegmentationNode or vtkMRMLLabelMapVolumeNode, or a scalar volume of whole numbers.
        model: name of a model for masks; None takes "ct-tissue".
        seed: the same seed gives the same voxels on the same device; None draws one, kept with the result.
        preset: "draft", "normal" or "best".
        device: "auto", "cpu" or "cuda:0".
        outputNode: vtkMRMLScalarVolumeNode to write over; None makes a new one beside the input.
        wait: block until the end; otherwise return a `Run` at once.
        onProgress(progress): with {"stage", "step", "total", "seconds_left", "memory_mib"}.
        onDone(run): called once when the run has ended, however.
        samples: how many volumes; the first may go to outputNode, the others are new nodes.
        mapping: segment name or label value -> label of the model (name or number, 0 drops it); or "totalsegmentator"
            or "freesurfer" for a mask with the numbers of these tools.
        fill: label of the model for the voxels inside the body that have none.
        noiseHU: noise of a CT in HU; None is the training scanners' own.
        style: scalar volume whose look the result gets: noise and tissue levels of a CT, contrast of an MR image.
        guidance: weight of the mask's say, 1 is the model's own; takes twice as long.
        classifierGuidance: weight of the model's classifier, which pulls towards the mask; 0 for none.
        spread: with two or more samples, also add the voxel-wise standard deviation.
        acceptLicense: accept the model's licence where it asks for that; remembered.

        Returns
        -------
        The vtkMRMLScalarVolumeNode, a list of them for samples > 1, or a `Run` for wait=False.

        Raises
        ------
        InputError, PackageError, LicenseError, MemoryPlanError, WorkerError, Cancelled: nothing was added.

        Example
        -------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                        # doctest: +SKIP
        >>> ct = logic.generate(slicer.util.getNode("Segmentation"), seed=7)                    # doctest: +SKIP
        >>> organs = logic.generate(slicer.util.getNode("Segmentation"), seed=7,
        ...                         mapping={"liver": "soft tissue", "Segment_2": "bone"},
        ...                         fill="fat")                                                 # doctest: +SKIP
        """
        manifest = self._manifest(model or DEFAULT_MODEL, "generate", acceptLicense)
        snapshot = self._capture(maskNode, "labels", outputNode)
        look = None if style is None else self._capture(style, "volume", outputNode)
        parameters = self._parameters(
            "generate",
            maskNode,
            manifest,
            seed,
            preset,
            device,
            outputNode,
            samples=samples,
            mapping=mapping,
            fill=fill,
            noiseHU=noiseHU,
            spread=spread,
            styleID=None if look is None else look.nodeID,
            styleName="" if look is None else look.name,
            guidance=guidance,
            classifierGuidance=classifierGuidance,
            acceptLicense=acceptLicense,
        )
        run = self._lastGeneration = SynthesisRun(
            self.engine, parameters, manifest, snapshot, outputNode, onProgress, onDone, look
        )
        return self._started(run, wait)

    def translate(
        self,
        volumeNode,
        to: str,
        model: str | None = None,
        seed: int | None = None,
        preset: str = "normal",
        device: str = "auto",
        outputNode=None,
        wait: bool = True,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
        *,
        spread: bool = False,
        acceptLicense: bool = False,
    ):
        """Translate a CT into an MR image or the reverse.

        Parameters
        ----------
        volumeNode: vtkMRMLScalarVolumeNode of a head.
        to: modality wanted, "CT" or "T1w".
        model: name of a model for images; None takes the first that fits.
        seed: kept with the result; translation draws nothing at random.
        preset, device, outputNode, wait, onProgress, onDone, acceptLicense: as in `generate`.
        spread: also add how much several views of each voxel differ (`run.spreadNode`); takes twice as long.

        Returns
        -------
        The vtkMRMLScalarVolumeNode, or a `Run` for wait=False.

        Raises
        ------
        InputError, PackageError, LicenseError, MemoryPlanError, WorkerError, Cancelled: nothing was added.

        Example
        -------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                          # doctest: +SKIP
        >>> ct = logic.translate(slicer.util.getNode("HeadT1"), "CT", acceptLicense=True)         # doctest: +SKIP
        """
        snapshot = self._capture(volumeNode, "volume", outputNode)
        if model is None:
            # What the image looks like takes time to find out; the worker does that before it begins.
            model = self._translator(snapshot.modality, to).name
        manifest = self._manifest(model, "translate", acceptLicense)
        parameters = self._parameters(
            "translate",
            volumeNode,
            manifest,
            seed,
            preset,
            device,
            outputNode,
            to=to,
            spread=spread,
            acceptLicense=acceptLicense,
        )
        run = SynthesisRun(self.engine, parameters, manifest, snapshot, outputNode, onProgress, onDone)
        return self._started(run, wait)

    def liveEdit(
        self,
        volumeNode,
        segmentationNode,
        model: str | None = None,
        preset: str = "draft",
        device: str = "auto",
        onChange: Callable[[LiveEdit], None] | None = None,
        *,
        live: bool = True,
        seed: int | None = None,
        mapping: Any = None,
        fill: int | str | None = None,
        noiseHU: float | None = None,
        acceptLicense: bool = False,
    ) -> LiveEdit:
        """Redraw a volume while its segmentation is painted; returns at once.

        Only the region about each change is made anew, every other voxel stays as it is, bit by bit. There is never
        more than one edit on its way. One volume at a time: a second call ends the first editing.

        Parameters
        ----------
        volumeNode: scalar volume. One that MedGen made is changed in place; of any other a copy is made first.
        segmentationNode: vtkMRMLSegmentationNode that says what the volume shows; it is only read.
        model: name of a model for masks; None takes the one that made the volume, else one of its modality.
        preset: "draft" is meant for this.
        onChange(edit): called when the state, the sentence or the volume has changed.
        live: False draws only when `redraw` of the returned object is called.
        device, seed, mapping, fill, noiseHU, acceptLicense: as in `generate`; for a volume of the last run they are
            the run's own.

        Returns
        -------
        LiveEdit: `undo`, `redo`, `redraw`, `setLive`, `stop`, `wait`; `volumeNode`, `state`, `sentence`.

        Raises
        ------
        InputError, PackageError, LicenseError: nothing was begun. What ends it later is its `error` and `sentence`.

        Example
        -------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> mask = slicer.util.getNode("Segmentation")                                              # doctest: +SKIP
        >>> edit = logic.liveEdit(logic.generate(mask, seed=7), mask).wait()                        # doctest: +SKIP
        >>> edit.undo()                                                                             # doctest: +SKIP
        """
        from MedGenSlicer.editing.live import EditChoices, LiveEdit

        manifest = self._drawing(volumeNode, segmentationNode, model, preset, acceptLicense)
        choices = EditChoices(preset, seed, device, mapping, fill, noiseHU, acceptLicense)
        choices, drawnFrom = self._origin(volumeNode, segmentationNode, manifest, choices)
        edit = LiveEdit(self.engine, volumeNode, segmentationNode, manifest, choices, live, onChange, drawnFrom)
        if self.currentEdit is not None:
            self.currentEdit.stop(_("Live editing ended because another one was begun."))
        self.currentEdit = edit
        return edit.start()

    def edit(
        self,
        volumeNode,
        maskNode,
        newMaskNode,
        model: str | None = None,
        seed: int | None = None,
        preset: str = "normal",
        device: str = "auto",
        wait: bool = True,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
        *,
        mapping: Any = None,
        fill: int | str | None = None,
        noiseHU: float | None = None,
        acceptLicense: bool = False,
    ):
        """Make a volume follow a changed mask: a copy of it in which only the changed region is made anew.

        Parameters
        ----------
        volumeNode: scalar volume, real or synthetic.
        maskNode: segmentation or label map of what it shows; newMaskNode: of what it shall show.
        model: as in `liveEdit`; the others as in `generate`.

        Returns
        -------
        The vtkMRMLScalarVolumeNode with the change, or a `Run` for wait=False.

        Example
        -------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> ct = logic.edit(slicer.util.getNode("CT"), slicer.util.getNode("Before"),
        ...                 slicer.util.getNode("After"))                                           # doctest: +SKIP
        """
        from MedGenSlicer.editing.live import EditChoices
        from MedGenSlicer.editing.run import EditRun

        self._refuseSecond()
        manifest = self._drawing(volumeNode, maskNode, model, preset, acceptLicense)
        choices = EditChoices(preset, seed, device, mapping, fill, noiseHU, acceptLicense)
        run = EditRun(self.engine, volumeNode, maskNode, newMaskNode, manifest, choices, onProgress, onDone)
        return self._started(run, wait)

    def insertLesion(
        self,
        volumeNode,
        place=None,
        shape: str = "sphere",
        sizeMm: float | None = None,
        label: int | str | None = None,
        contrast: float | None = None,
        model: str | None = None,
        seed: int | None = None,
        preset: str = "normal",
        device: str = "auto",
        wait: bool = True,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
        *,
        segment: str | None = None,
        organ: int | str | None = None,
        labelsNode=None,
        mapping: Any = None,
        fill: int | str | None = None,
        acceptLicense: bool = False,
    ):
        """Put a lesion into a volume: a new volume, identical outside a stated halo, and the lesion's segmentation.

        Parameters
        ----------
        volumeNode: scalar volume, real or synthetic; it stays as it is.
        place: (x, y, z) in RAS mm; a point list, whose last point counts; or a segmentation or label map in which the
            lesion is painted (segment: which one). None with an organ lets the seed choose a place in it.
        shape: "sphere", "ellipsoid", "lobulated", "spiculated" or another of `MedGenLib.editing.lesions.names()`.
        sizeMm: greatest diameter; None is 10 mm, or the own size of a shape from the library.
        label: label of the model that the place gets and is made anew with; None keeps the tissue.
        contrast: how much brighter than that, or darker below 0, in the unit of the volume (HU for CT).
        organ, labelsNode: stay inside this label of a segmentation or label map on the volume's place.
        model: as in `liveEdit`; the others as in `generate`.

        Returns
        -------
        The vtkMRMLScalarVolumeNode with the lesion (`currentRun.lesionNode` is its segmentation), or a `Run` for
        wait=False.

        Example
        -------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> made = logic.insertLesion(slicer.util.getNode("CT"), (52, 10, -120), "spiculated", 18,
        ...                           label="soft tissue", seed=1)                                  # doctest: +SKIP
        """
        from MedGenSlicer.jobs.lesion import LesionChoices, LesionRun

        self._refuseSecond()
        manifest = self._drawing(volumeNode, labelsNode, model, preset, acceptLicense)
        choices = LesionChoices(
            shape, sizeMm, label, contrast, organ, seed, preset, device, mapping, fill, acceptLicense
        )
        run = LesionRun(self.engine, volumeNode, place, manifest, choices, segment, labelsNode, onProgress, onDone)
        return self._started(run, wait)

    def models(self) -> list[Manifest]:
        """The models that can be used, embedded ones first; needs no worker.

        >>> [model.name for model in slicer.util.getModuleLogic("MedGen").models()]   # doctest: +SKIP
        """
        from MedGenLib.packages.catalogue import light_catalogue

        return light_catalogue()

    def cancel(self) -> None:
        """Stop the run that is on, if there is one; nothing is added to the scene.

        >>> slicer.util.getModuleLogic("MedGen").cancel()   # doctest: +SKIP
        """
        if self.isRunning:
            self.currentRun.cancel()

    @property
    def isRunning(self) -> bool:
        """Whether a run is on."""
        return self.currentRun is not None and not self.currentRun.isDone

    def evaluate(
        self,
        imageNode,
        referenceNode=None,
        maskNode=None,
        wait: bool = True,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
        *,
        labelsNode=None,
        segmenter: str | None = None,
        uncertaintyNode=None,
        reportFolder: str | None = None,
    ):
        """Judge an image against a reference, against the labels that it should show, or both.

        Parameters
        ----------
        imageNode, referenceNode: scalar volumes; the reference is resampled where its grid is another one. Its error
            map is added to the scene (`run.errorNode`).
        maskNode: segmentation or label map of where to compare; None takes the body.
        labelsNode: segmentation or label map of structures that are measured by themselves.
        segmenter: what finds these labels again in the image: the name of a model ("ct-tissue",
            "hippocampus-segmenter"), "totalsegmentator" or "nnunet:FOLDER".
        uncertaintyNode: spread of several samples; does it tell where the image is wrong?
        reportFolder: also write report.html with pictures there (`run.report`).

        Returns
        -------
        A vtkMRMLTableNode, or a `Run` for wait=False.

        Example
        -------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> table = logic.evaluate(slicer.util.getNode("Synthetic"), slicer.util.getNode("CT"))     # doctest: +SKIP
        """
        from MedGenSlicer.jobs.evaluation import EvaluationInputs, EvaluationRun

        self._refuseSecond()
        if referenceNode is None and (labelsNode is None or not segmenter):
            raise InputError(
                _(
                    "There is nothing to compare with; choose a reference, or labels and what finds them "
                    "again in the image."
                )
            )

        def captured(node, kind: str):
            return nodes.captureInput(node, kind) if node is not None else None

        inputs = EvaluationInputs(
            nodes.captureInput(imageNode, "volume"),
            captured(referenceNode, "volume"),
            captured(maskNode, "labels"),
            captured(labelsNode, "labels"),
            segmenter or None,
            captured(uncertaintyNode, "volume"),
            reportFolder,
        )
        return self._started(EvaluationRun(self.engine, inputs, onProgress, onDone), wait)

    def exportDicom(
        self,
        node,
        folder: str,
        sourceNode=None,
        deidentify: bool = False,
        wait: bool = True,
        onProgress: Callable[[dict], None] | None = None,
        onDone: Callable[[Run], None] | None = None,
    ):
        """Write a volume as a DICOM series, or a mask as a DICOM segmentation.

        Parameters
        ----------
        node: scalar volume, segmentation or label map; a synthetic image says that it is one.
        folder: of the new series; must not exist or be empty.
        sourceNode: volume that came from DICOM: the series joins its patient and study; None makes a new patient.
        deidentify: remove what names the patient (DICOM PS3.15, basic profile).

        Returns
        -------
        Paths of the files, or a `Run` for wait=False.

        Example
        -------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> files = logic.exportDicom(slicer.util.getNode("Synthetic"), "/tmp/series")              # doctest: +SKIP
        """
        from MedGenSlicer.jobs.dicom import DicomRun

        self._refuseSecond()
        snapshot = nodes.captureInput(node)
        return self._started(DicomRun(self.engine, snapshot, folder, sourceNode, deidentify, onProgress, onDone), wait)

    def checkInput(self, node, model: str | None = None, to: str | None = None, mapping: Any = None) -> list[Finding]:
        """What the library would say about an input, before anything is computed; in this process, without torch.

        Parameters
        ----------
        model: name of the model; or, for an image, the modality wanted as `to`.
        mapping: as in `generate`.

        Returns
        -------
        Findings of level "error" (cannot run) or "warning", each with one sentence; empty when all is well.
        """
        try:
            return self._check(node, model, to, mapping)()
        except (InputError, PackageError) as error:
            return _errorFinding(error)

    def startCheck(
        self,
        node,
        onDone: Callable[[list[Finding]], None],
        model: str | None = None,
        to: str | None = None,
        mapping: Any = None,
    ) -> None:
        """Like `checkInput`, but the voxels are looked at in a thread; `onDone(findings)` is called once, in the GUI
        thread."""
        try:
            work = self._check(node, model, to, mapping)
        except (InputError, PackageError) as error:
            onDone(_errorFinding(error))
            return
        Background(work, onDone, lambda error: onDone(_errorFinding(error)))

    def planFor(self, node, model: str, preset: str = "normal", device: str = "cpu", samples: int = 1) -> RunPlan:
        """How long a run will take and how much memory it needs; raises InputError for a node that cannot be used."""
        from MedGenLib.imaging.volume import Geometry
        from MedGenLib.pipelines.estimate import plan_run

        snapshot = nodes.captureInput(node)
        return plan_run(
            self._find(model), Geometry(snapshot.shape, snapshot.affine), preset, device=device, samples=samples
        )

    def cleanup(self) -> None:
        """Stop the run, live editing and the worker; for module removal, reload and tests."""
        self.cancel()
        if self.currentEdit is not None:
            self.currentEdit.stop()
        self.engine.cleanup()

    def _check(self, node, model: str | None, to: str | None, mapping: Any) -> Callable[[], list[Finding]]:
        """Takes what the scene holds; what is returned does the work and may be called in another thread."""
        if to is not None and model is None:
            stated = nodes.captureInput(node, "volume").modality
            manifest = self._translator(stated or nodes.guessModality(node), to)
        else:
            manifest = self._find(model or DEFAULT_MODEL)
        if manifest.task == "translate":
            image = nodes.captureInput(node, "volume")
            return lambda: _imageFindings(image, manifest)
        mask = nodes.captureInput(node, "labels")
        return lambda: _maskFindings(mask, manifest, mapping)

    def _drawing(self, volumeNode, maskNode, model: str | None, preset: str, acceptLicense: bool) -> Manifest:
        """The model that draws regions of a volume; raises what is wrong with the choices."""
        from MedGenSlicer.editing.origin import modelFor, requireSuits

        nodes.statedModality(volumeNode)  # raises what is no image
        name = model or modelFor(volumeNode, self.models(), maskNode)
        manifest = self._manifest(name, "generate", acceptLicense)
        manifest.preset(preset)
        requireSuits(volumeNode, manifest)
        return manifest

    def _origin(self, volumeNode, segmentationNode, manifest: Manifest, choices):
        """The choices of the run that made a volume where the caller has none, and the mask that it shows, where both
        are known."""
        from MedGenSlicer.editing.origin import choicesOf, maskOf

        run, last = self._lastGeneration, self.currentEdit
        if last is not None and last.shows(volumeNode, segmentationNode, manifest):
            return choicesOf(volumeNode, last.choices, choices), last.drawnMask
        if run is None or volumeNode not in run.nodes or run.manifest.name != manifest.name:
            return choicesOf(volumeNode, None, choices), None
        choices = choicesOf(volumeNode, run.parameters, choices)
        return choices, maskOf(run, volumeNode, segmentationNode, choices.mapping)

    def _capture(self, node, kind: str, outputNode):
        self._refuseSecond()
        snapshot = nodes.captureInput(node, kind)
        results.checkOutput(snapshot, outputNode)
        return snapshot

    def _refuseSecond(self) -> None:
        if self.isRunning:
            raise InputError(_("A run is on already; wait for its end or cancel it first."))

    def _parameters(
        self, task: str, node, manifest: Manifest, seed, preset: str, device: str, outputNode, **more: Any
    ) -> RunParameters:
        manifest.preset(preset)  # raises InputError with the presets there are
        return RunParameters(
            task,
            node.GetID(),
            node.GetName(),
            model=manifest.name,
            seed=seed,
            preset=preset,
            device=device,
            outputID=outputNode.GetID() if outputNode is not None else None,
            **more,
        )

    def _find(self, name: str) -> Manifest:
        manifests = self.models()
        for manifest in manifests:
            if manifest.name == name:
                return manifest
        raise PackageError(
            _("There is no model named '{name}'; the installed models are: {known}.").format(
                name=name, known=", ".join(manifest.name for manifest in manifests) or _("none")
            )
        )

    def _manifest(self, name: str, task: str, acceptLicense: bool) -> Manifest:
        from MedGenLib.packages.license import is_accepted, license_notice

        manifest = self._find(name)
        if manifest.task != task:
            reasons = {
                "translate": _("The model '{name}' translates images; use translate, or choose a model for masks."),
                "generate": _("The model '{name}' needs a mask; use generate, or choose a model for images."),
            }
            other = _("The model '{name}' makes no images, it serves the evaluation; choose another model.")
            raise InputError(reasons.get(manifest.task, other).format(name=name))
        if not acceptLicense and not is_accepted(manifest):
            raise LicenseError(
                _("{notice} Read {file} and accept it in the panel, or give acceptLicense=True, if you agree.").format(
                    notice=license_notice(manifest), file=manifest.folder / "LICENSE"
                )
            )
        return manifest

    def _translator(self, source: str | None, to: str) -> Manifest:
        from MedGenLib.packages.catalogue import same_modality

        translators = [manifest for manifest in self.models() if manifest.task == "translate"]
        for manifest in translators:
            if same_modality(source, manifest.input.modality) and same_modality(to, manifest.output.modality):
                return manifest
        known = ", ".join(f"{model.input.modality} to {model.output.modality}" for model in translators)
        raise PackageError(
            _("No model translates {source} to {to}; the translations are: {known}.").format(
                source=source or _("this image"), to=to, known=known or _("none")
            )
        )

    def _started(self, run: Run, wait: bool):
        self.currentRun = run
        run.start()
        return run.result() if wait else run


def _imageFindings(snapshot, manifest: Manifest) -> list[Finding]:
    from MedGenLib.checks.input import check_image
    from MedGenLib.findings import notes

    return [*notes(snapshot.image), *check_image(snapshot.image, manifest)]


def _maskFindings(snapshot, manifest: Manifest, mapping: Any) -> list[Finding]:
    from MedGenLib.checks.input import check_mask
    from MedGenLib.findings import Finding, notes

    labels, unknown = nodes.mapLabels(snapshot.image, manifest, snapshot.mappingByValue(mapping))
    findings = [*notes(labels), *check_mask(labels, manifest)]
    if unknown:
        findings.insert(0, Finding("error", "unknown-labels", nodes.unmappedSentence(unknown, manifest)))
    return findings


def _errorFinding(error: Exception) -> list[Finding]:
    from MedGenLib.findings import Finding

    return [Finding("error", "input", str(error))]
