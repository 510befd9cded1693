"""What the panel's buttons and Slicer's Python console call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from MedGenLib.errors import InputError, PackageError
from MedGenLib.imaging.volume import Geometry
from MedGenLib.options import COMMANDS, documented, snake
from MedGenLib.packages.catalogue import light_catalogue
from MedGenSlicer import models
from MedGenSlicer.console import RunParameters
from MedGenSlicer.editing import origin
from MedGenSlicer.engine.background import Background
from MedGenSlicer.engine.dependencies import Dependencies
from MedGenSlicer.engine.engine import Engine
from MedGenSlicer.jobs.run import Run
from MedGenSlicer.jobs.synthesis import SynthesisRun
from MedGenSlicer.nodes.findings import errorFinding, imageFindings, maskFindings
from MedGenSlicer.nodes.inputs import captureInput, captureOn, outlineOf
from MedGenSlicer.nodes.kinds import kindOf
from MedGenSlicer.nodes.modality import guessModality
from MedGenSlicer.results import volumes as results

if TYPE_CHECKING:
    from MedGenLib.findings import Finding
    from MedGenLib.packages.manifest import Manifest
    from MedGenLib.pipelines.estimate import RunPlan
    from MedGenSlicer.editing.live import LiveEdit
    from MedGenSlicer.jobs.cohort import CohortRun

OnProgress = Callable[[dict], None]
OnDone = Callable[[Run], None]


class MedGenLogic(ScriptedLoadableModuleLogic):
    """Synthetic CT and MR volumes from masks, and MR <-> CT translation.

    Every call blocks until the result is in the scene, while Slicer stays usable; `wait=False` returns a `Run` at
    once, and `onDone(run)` is called when it has ended. Input nodes are never changed. Errors are the exceptions of
    MedGenLib.errors; each is one plain sentence. What is wrong with the input or the options is raised by the call
    itself, whether it waits or not; what happens later is in `run.error`.

    Examples
    --------
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
    currentRun: the current run, or the last one.
    currentEdit: the current live editing, or the last one.
    currentCohort: the current run of many cases, or the last one.
    """

    def __init__(self, engine: Engine | None = None, dependencies: Dependencies | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.engine = engine or Engine()
        self.dependencies = dependencies or Dependencies(self.engine)
        self.currentRun: Run | None = None
        self.currentEdit: LiveEdit | None = None
        self.currentCohort: CohortRun | None = None
        self._lastGeneration: SynthesisRun | None = None
        self.engine.isNeeded = self._needsWorker

    def getParameterNode(self):
        """The choices of the panel, saved with the scene (see `parameters.py`)."""
        from MedGenSlicer.parameters import MedGenParameterNode

        return MedGenParameterNode(self.parameterNode())

    def parameterNode(self):
        """The node in which the choices of the panel are kept."""
        return super().getParameterNode()

    @documented("generate", "slicer")
    def generate(
        self,
        maskNode=None,
        model: str = "ct-tissue",
        seed: int | None = None,
        preset: str = "normal",
        device: str = "auto",
        outputNode=None,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Make a synthetic volume that follows a mask.

        Parameters
        ----------
        {options}
        outputNode: vtkMRMLScalarVolumeNode to write over; None makes a new one beside the input. With several samples
            it gets the first.
        wait: block until the end; otherwise return a `Run` at once.
        onProgress(progress): with {"stage", "step", "total", "seconds_left", "memory_mib"}.
        onDone(run): called once when the run has ended, however.

        Returns
        -------
        The vtkMRMLScalarVolumeNode, a list of them for samples > 1, or a `Run` for wait=False.

        Raises
        ------
        InputError, PackageError, LicenseError, MemoryPlanError, WorkerError, Cancelled: nothing was added.

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                        # doctest: +SKIP
        >>> ct = logic.generate(slicer.util.getNode("Segmentation"), seed=7)                    # doctest: +SKIP
        >>> organs = logic.generate(slicer.util.getNode("Segmentation"), seed=7,
        ...                         mapping={"liver": "soft tissue", "Segment_2": "bone"},
        ...                         fill="fat")                                                 # doctest: +SKIP
        """
        manifest = models.usable(model, "generate", options["accept_license"])
        if manifest.input.kind == "labels" or (options["size"] is None and manifest.settings.grid is None):
            kindOf(maskNode, "labels")
        options |= {"mask": maskNode, "model": model, "seed": seed, "preset": preset, "device": device}
        parameters = self._parameters("generate", manifest, options, outputNode)
        run = SynthesisRun(self.engine, parameters, manifest, outputNode)
        self._lastGeneration = run
        return self._started(run, wait, onProgress, onDone)

    @documented("translate", "slicer")
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
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Translate a CT into an MR image or the reverse.

        Parameters
        ----------
        {options}
        outputNode, wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        The vtkMRMLScalarVolumeNode (with uncertainty, `currentRun.spreadNode` is its map), or a `Run` for
        wait=False.

        Raises
        ------
        InputError, PackageError, LicenseError, MemoryPlanError, WorkerError, Cancelled: nothing was added.

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                          # doctest: +SKIP
        >>> ct = logic.translate(slicer.util.getNode("HeadT1"), "CT", acceptLicense=True)         # doctest: +SKIP
        """
        if model is None:
            # What the image looks like takes time to find out; the worker does that before it begins.
            model = models.translator(outlineOf(volumeNode, "volume").modality, to).name
        manifest = models.usable(model, "translate", options["accept_license"])
        options |= {"image": volumeNode, "to": to, "model": model, "seed": seed, "preset": preset, "device": device}
        parameters = self._parameters("translate", manifest, options, outputNode)
        return self._started(SynthesisRun(self.engine, parameters, manifest, outputNode), wait, onProgress, onDone)

    @documented("live_edit", "slicer")
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
        **options: Any,
    ) -> LiveEdit:
        """Redraw a volume while its segmentation is painted; returns at once.

        Only the region about each change is redrawn, every other voxel stays as it is, bit by bit. The worker has at
        most one edit. One volume at a time: a second call ends the first editing.

        Parameters
        ----------
        {options}
        onChange(edit): called when the state, the sentence or the volume has changed.
        live: False draws only when `redraw` of the returned object is called.

        Options that are not given are those of the last run or editing where it made the volume.

        Returns
        -------
        LiveEdit: `undo`, `redo`, `redraw`, `setLive`, `stop`, `wait`; `volumeNode`, `state`, `sentence`.

        Raises
        ------
        InputError, PackageError, LicenseError: nothing was started. Later errors are in `error` and `sentence`.

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> mask = slicer.util.getNode("Segmentation")                                              # doctest: +SKIP
        >>> edit = logic.liveEdit(logic.generate(mask, seed=7), mask).wait()                        # doctest: +SKIP
        >>> edit.undo()                                                                             # doctest: +SKIP
        """
        from MedGenSlicer.editing.live import LiveEdit

        manifest = self._drawing(volumeNode, segmentationNode, model, preset, options["accept_license"])
        options |= {"model": manifest.name, "preset": preset, "device": device}
        parameters, drawnFrom = self._origin(volumeNode, segmentationNode, manifest, options)
        edit = LiveEdit(self.engine, volumeNode, segmentationNode, manifest, parameters, live, onChange, drawnFrom)
        if self.currentEdit is not None:
            self.currentEdit.stop(_("Live editing ended because another one started."))
        self.currentEdit = edit
        return edit.start()

    @documented("edit", "slicer")
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
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Make a volume follow a changed mask: a copy of it in which only the changed region is redrawn.

        Parameters
        ----------
        {options}
        wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        The vtkMRMLScalarVolumeNode with the change, or a `Run` for wait=False.

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> ct = logic.edit(slicer.util.getNode("CT"), slicer.util.getNode("Before"),
        ...                 slicer.util.getNode("After"))                                           # doctest: +SKIP
        """
        from MedGenSlicer.jobs.edit import EditRun

        manifest = self._drawing(volumeNode, maskNode, model, preset, options["accept_license"])
        options |= {"volume": volumeNode, "model": manifest.name, "seed": seed, "preset": preset, "device": device}
        parameters = self._parameters("edit", manifest, options).replaced(
            mask=captureOn(maskNode, volumeNode), new_mask=captureOn(newMaskNode, volumeNode)
        )
        return self._started(EditRun(self.engine, parameters, manifest), wait, onProgress, onDone)

    @documented("insert_lesion", "slicer")
    def insertLesion(
        self,
        volumeNode,
        place=None,
        shape: str = "sphere",
        sizeMm: float | None = None,
        label: int | str | None = None,
        contrast: float | None = None,
        *,
        segment: str | None = None,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Put a lesion into a volume: a new volume, identical outside a stated halo, and the lesion's segmentation.

        Parameters
        ----------
        {options}
        place: (x, y, z) in RAS mm; a point list, whose last point counts; or a segmentation or label map in which the
            lesion is painted. None with an organ lets the seed choose a place in it.
        segment: name or ID of the painted segment where there are several.
        wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        The vtkMRMLScalarVolumeNode with the lesion (`currentRun.lesionNode` is its segmentation), with ``grow`` the
        vtkMRMLSequenceBrowserNode, or a `Run` for wait=False.

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> made = logic.insertLesion(slicer.util.getNode("CT"), (52, 10, -120), "spiculated", 18,
        ...                           label="soft tissue", seed=1)                                  # doctest: +SKIP
        """
        from MedGenSlicer.jobs.lesion import LesionRun

        labelsNode = options.pop("labels")
        manifest = self._drawing(volumeNode, labelsNode, options["model"], options["preset"], options["accept_license"])
        options |= {"image": volumeNode, "shape": shape, "size_mm": sizeMm, "label": label, "contrast": contrast}
        parameters = self._parameters("insert_lesion", manifest, options).replaced(
            labels=None if labelsNode is None else captureOn(labelsNode, volumeNode)
        )
        return self._started(LesionRun(self.engine, parameters, manifest, place, segment), wait, onProgress, onDone)

    @documented("breathe", "slicer")
    def breathe(
        self,
        volumeNode,
        phases: int = 10,
        amplitude: float = 15.0,
        *,
        pointsNode=None,
        transforms: bool = False,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Make a breathing series from a CT of the chest: synchronized sequences in one browser.

        Parameters
        ----------
        {options}
        pointsNode: point list whose points are followed; `currentRun.tracks` has their paths.
        transforms: add the motion as a sequence of transforms, too.
        wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        The vtkMRMLSequenceBrowserNode, or a `Run` for wait=False.

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                # doctest: +SKIP
        >>> browser = logic.breathe(slicer.util.getNode("CT"), amplitude=12)            # doctest: +SKIP
        """
        from MedGenSlicer.jobs.breathe import BreatheRun, placesOf

        labelsNode = options.pop("labels")
        options |= {"image": volumeNode, "phases": phases, "amplitude": amplitude}
        parameters = self._parameters("breathe", None, options).replaced(
            labels=None if labelsNode is None else captureOn(labelsNode, volumeNode),
            points=None if pointsNode is None else placesOf(pointsNode),
        )
        return self._started(BreatheRun(self.engine, parameters, transforms), wait, onProgress, onDone)

    @documented("enhance", "slicer")
    def enhance(
        self,
        volumeNode,
        task: str = "superres",
        secondNode=None,
        thirdNode=None,
        device: str = "auto",
        outputNode=None,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Make an image finer, less noisy or more even.

        Parameters
        ----------
        {options}
        outputNode, wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        The vtkMRMLScalarVolumeNode, or a `Run` for wait=False. With "superres" it has cubic voxels, in the place of the
        input.

        Raises
        ------
        InputError, PackageError, LicenseError, MemoryPlanError, WorkerError, Cancelled: nothing was added.

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                # doctest: +SKIP
        >>> stacks = [slicer.util.getNode(name) for name in ("Sagittal", "Axial")]      # doctest: +SKIP
        >>> fine = logic.enhance(stacks[0], secondNode=stacks[1])                       # doctest: +SKIP
        """
        from MedGenSlicer.jobs.enhance import EnhanceRun

        stacks = {"image": volumeNode, "second": secondNode, "third": thirdNode}
        options |= {**stacks, "task": task, "device": device}
        parameters = self._parameters("enhance", None, options, outputNode)
        return self._started(EnhanceRun(self.engine, parameters, outputNode), wait, onProgress, onDone)

    def runCohort(
        self,
        folder: str,
        verb: str = "generate",
        outputFolder: str | None = None,
        samples: int = 1,
        seed: int = 0,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **parameters: Any,
    ) -> CohortRun:
        """Run every volume of a folder, as `medgen cohort run`; the same call goes on after a stop.

        Parameters
        ----------
        folder: of masks or images, one case a file or a folder with a DICOM series.
        verb: generate, translate, evaluate or insert-lesion.
        outputFolder: of the results; None takes one beside the folder.
        samples: cases for each file. seed: from which each case draws its own.
        wait, onProgress, onDone: as in `generate`.
        parameters: options of the verb; an image is a path, or a folder with a file of the same name for each case.

        Returns
        -------
        CohortRun: `cases` (name -> status, sentence, seconds), `outputFolder`, `report`, `cancel`. A case that fails
        raises nothing.
        """
        from MedGenLib.cohort.making import CaseRecipe
        from MedGenLib.cohort.verbs import VERBS
        from MedGenSlicer.jobs.cohort import CohortRun

        if verb not in VERBS:
            raise InputError(_("There is no verb '{verb}'; choose {known}.").format(verb=verb, known=", ".join(VERBS)))
        if self.currentCohort is not None and not self.currentCohort.isDone:
            raise InputError(_("A cohort is running already; wait for its end or cancel it first."))
        options = {snake(name): value for name, value in parameters.items()}
        if options.get("model") and verb in ("generate", "translate"):
            models.usable(options["model"], verb, bool(options.get("accept_license")))
        inputs = {name: Path(options.pop(name)) for name in VERBS[verb].inputs if options.get(name) is not None}
        recipe = CaseRecipe(verb, inputs, samples=samples, seed=seed)
        self.currentCohort = run = CohortRun(self.engine, folder, recipe, options, outputFolder)
        run.start(onProgress, onDone)
        return run.result() if wait else run

    def openCase(self, outputFolder: str, name: str, wait: bool = True, onDone: OnDone | None = None):
        """Load the image of a case of `runCohort` that is done, where its input lies: a vtkMRMLScalarVolumeNode, or a
        `Run` for wait=False.
        """
        from MedGenSlicer.jobs.cohort import CaseRun

        run = CaseRun(self.engine, outputFolder, name)
        run.start(onDone=onDone)
        return run.result() if wait else run

    def models(self) -> list[Manifest]:
        """The models that can be used, embedded ones first; needs no worker.

        >>> [model.name for model in slicer.util.getModuleLogic("MedGen").models()]   # doctest: +SKIP
        """
        return light_catalogue()

    def cancel(self) -> None:
        """Stop the current run, if there is one; nothing is added to the scene.

        >>> slicer.util.getModuleLogic("MedGen").cancel()   # doctest: +SKIP
        """
        if self.isRunning:
            self.currentRun.cancel()

    @property
    def isRunning(self) -> bool:
        """Whether a run has not ended yet."""
        return self.currentRun is not None and not self.currentRun.isDone

    @documented("evaluate", "slicer")
    def evaluate(
        self,
        imageNode,
        referenceNode=None,
        maskNode=None,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Measure an image against a reference, against the labels that it should show, or both.

        Parameters
        ----------
        {options}
        wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        A vtkMRMLTableNode, or a `Run` for wait=False. The run also has the error map (`errorNode`) and the path of the
        report (`report`).

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> table = logic.evaluate(slicer.util.getNode("Synthetic"), slicer.util.getNode("CT"))     # doctest: +SKIP
        """
        from MedGenSlicer.jobs.evaluation import EvaluationRun

        if referenceNode is None and (options["labels"] is None or not options["segmenter"]):
            raise InputError(
                _(
                    "There is nothing to compare with; choose a reference, or labels and what finds them "
                    "again in the image."
                )
            )
        options |= {"image": imageNode, "reference": referenceNode, "mask": maskNode}
        parameters = self._parameters("evaluate", None, options)
        return self._started(EvaluationRun(self.engine, parameters), wait, onProgress, onDone)

    @documented("classify", "slicer")
    def classify(
        self,
        volumeNode,
        model: str,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Find the class of an image, by a model of the recipe image-classifier; no diagnosis.

        Parameters
        ----------
        {options}
        wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        A vtkMRMLTableNode of probabilities, or a `Run` for wait=False. The run also has them as a dictionary
        (`probabilities`), and the saliency map (`saliencyNode`).

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                        # doctest: +SKIP
        >>> table = logic.classify(slicer.util.getNode("Hand"), model="hands", saliency=True)   # doctest: +SKIP
        """
        from MedGenSlicer.jobs.classify import ClassifyRun

        parameters = self._parameters("classify", None, options | {"image": volumeNode, "model": model})
        return self._started(ClassifyRun(self.engine, parameters), wait, onProgress, onDone)

    @documented("detect", "slicer")
    def detect(
        self,
        volumeNode,
        model: str,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
        **options: Any,
    ):
        """Find candidates of lesions, by a model of the task detect; no diagnosis.

        Parameters
        ----------
        {options}
        wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        A list of the vtkMRMLSegmentationNode, the vtkMRMLMarkupsFiducialNode and the vtkMRMLTableNode of the
        candidates, or a `Run` for wait=False. The run also has them as dictionaries (`candidates`).

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                             # doctest: +SKIP
        >>> segments, points, table = logic.detect(slicer.util.getNode("CT"), model="my-detector")   # doctest: +SKIP
        """
        from MedGenSlicer.jobs.detect import DetectRun

        parameters = self._parameters("detect", None, options | {"image": volumeNode, "model": model})
        return self._started(DetectRun(self.engine, parameters), wait, onProgress, onDone)

    def exportDicom(
        self,
        node,
        folder: str,
        sourceNode=None,
        deidentify: bool = False,
        wait: bool = True,
        onProgress: OnProgress | None = None,
        onDone: OnDone | None = None,
    ):
        """Write a volume as a DICOM series, or a mask as a DICOM segmentation.

        Parameters
        ----------
        node: scalar volume, segmentation or label map; a synthetic image says that it is one.
        folder: of the new series; must not exist or be empty.
        sourceNode: volume that came from DICOM: the series joins its patient and study; None makes a new patient.
        deidentify: remove what names the patient (DICOM PS3.15, basic profile).
        wait, onProgress, onDone: as in `generate`.

        Returns
        -------
        Paths of the files, or a `Run` for wait=False.

        Examples
        --------
        >>> logic = slicer.util.getModuleLogic("MedGen")                                            # doctest: +SKIP
        >>> files = logic.exportDicom(slicer.util.getNode("Synthetic"), "/tmp/series")              # doctest: +SKIP
        """
        from MedGenSlicer.jobs.dicom import DicomRun

        self._refuseSecond()
        snapshot = captureInput(node)
        return self._started(DicomRun(self.engine, snapshot, folder, sourceNode, deidentify), wait, onProgress, onDone)

    def checkInput(self, node, model: str | None = None, to: str | None = None, mapping: Any = None) -> list[Finding]:
        """What the library finds in an input, before anything is computed; in this process, without torch.

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
            return errorFinding(error)

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
            onDone(errorFinding(error))
            return
        Background(work, onDone, lambda error: onDone(errorFinding(error)))

    def planFor(self, node, model: str, preset: str = "normal", device: str = "cpu", samples: int = 1) -> RunPlan:
        """How long a run will take and how much memory it needs; raises InputError for a node that cannot be used."""
        from MedGenLib.pipelines.estimate import plan_run

        outline = outlineOf(node)
        geometry = Geometry(outline.shape, outline.affine)
        return plan_run(models.find(model), geometry, preset, device=device, samples=samples)

    def cleanup(self) -> None:
        """Stop the run, live editing and the worker; for module removal, reload and tests."""
        self.cancel()
        if self.currentEdit is not None:
            self.currentEdit.stop()
        if self.currentCohort is not None:
            self.currentCohort.kill()
        self.engine.cleanup()

    def _check(self, node, model: str | None, to: str | None, mapping: Any) -> Callable[[], list[Finding]]:
        """Takes what the scene holds; what is returned does the work and may be called in another thread."""
        if to is not None and model is None:
            stated = outlineOf(node, "volume").modality
            manifest = models.translator(stated or guessModality(node), to)
        else:
            manifest = models.find(model or COMMANDS["generate"]["model"].default)
        if manifest.task == "translate":
            image = captureInput(node, "volume")
            return lambda: imageFindings(image, manifest)
        mask = captureInput(node, "labels")
        return lambda: maskFindings(mask, manifest, mapping)

    def _drawing(self, volumeNode, maskNode, model: str | None, preset: str, acceptLicense: bool) -> Manifest:
        """The model that draws regions of a volume; raises what is wrong with the choices."""
        kindOf(volumeNode, "volume")
        name = model or origin.modelFor(volumeNode, self.models(), maskNode)
        manifest = models.usable(name, "generate", acceptLicense)
        manifest.preset(preset)
        origin.requireSuits(volumeNode, manifest)
        return manifest

    def _origin(self, volumeNode, segmentationNode, manifest: Manifest, options: dict[str, Any]):
        """The options of live editing, completed by those of the run or editing that made a volume, and the mask that
        it shows, where both are known."""
        chosen = RunParameters("live_edit", options)
        run, last = self._lastGeneration, self.currentEdit
        if last is not None and last.shows(volumeNode, segmentationNode, manifest):
            return origin.completed(chosen, volumeNode, last.parameters), last.drawnMask
        if run is None or volumeNode not in run.nodes or run.manifest.name != manifest.name:
            return origin.completed(chosen, volumeNode, None), None
        chosen = origin.completed(chosen, volumeNode, run.parameters)
        return chosen, origin.maskOf(run, volumeNode, segmentationNode, chosen.mapping)

    def _parameters(
        self, command: str, manifest: Manifest | None, options: dict[str, Any], outputNode=None
    ) -> RunParameters:
        """The options of a run with their nodes as they are now."""
        self._refuseSecond()
        if manifest is not None:
            manifest.preset(options["preset"])  # raises InputError with the presets there are
        taken = {}
        for name, value in options.items():
            kind = COMMANDS[command][name].image
            if kind and value is not None:
                taken[name] = captureInput(value, kind)
                results.checkOutput(taken[name], outputNode)
            else:
                taken[name] = value.tolist() if hasattr(value, "tolist") else value  # numbers of numpy
        return RunParameters(command, taken)

    def _needsWorker(self) -> bool:
        return self.isRunning or (self.currentEdit is not None and self.currentEdit.state != "ended")

    def _refuseSecond(self) -> None:
        if self.isRunning:
            raise InputError(_("A run is going on already; wait for its end or cancel it first."))

    def _started(self, run: Run, wait: bool, onProgress: OnProgress | None, onDone: OnDone | None):
        self.currentRun = run
        run.start(onProgress, onDone)
        return run.result() if wait else run
