"""slicer.app.coreIOManager(): reading and writing through the real storage nodes and logics."""

import os

import slicer

_KINDS = {
    ".seg.nrrd": "SegmentationFile",
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".txt": "TextFile",
    ".tfm": "TransformFile",
    ".h5": "TransformFile",
    ".nii.gz": "VolumeFile",
    ".nii": "VolumeFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".mha": "VolumeFile",
    ".mhd": "VolumeFile",
}

_NODES = {"SegmentationFile": "Segmentation", "TableFile": "Table", "TextFile": "Text", "TransformFile": "Transform"}


class CoreIOManager:
    def __init__(self, logics):
        self._volumes = logics["Volumes"]

    def fileType(self, path):
        return _KINDS.get(self.extractKnownExtension(path), "NoFile")

    def extractKnownExtension(self, path, _node=None):
        name = str(path).lower()
        return next((extension for extension in _KINDS if name.endswith(extension)), os.path.splitext(name)[1])

    def fileWriterFileType(self, node):
        return node.GetClassName()

    def fileWriterExtensions(self, node):
        storage = node.CreateDefaultStorageNode()
        storage.SetScene(node.GetScene())
        found = storage.GetSupportedWriteFileTypes()
        return tuple(found.GetValue(index) for index in range(found.GetNumberOfValues()))

    def loadNodes(self, fileType, properties, loaded, _messages=None):
        path = str(properties["fileName"])
        if fileType == "SceneFile":
            return self._loadScene(path, bool(properties.get("clear", False)))
        if not os.path.isfile(path):
            return False
        name = properties.get("name") or os.path.basename(path)[: -len(self.extractKnownExtension(path)) or None]
        node = self._loadNode(fileType, path, name, properties)
        if node is not None:
            loaded.AddItem(node)
        return node is not None

    def _loadScene(self, path, clear):
        scene = slicer.mrmlScene
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def _loadNode(self, fileType, path, name, properties):
        if fileType == "VolumeFile":
            return self._loadVolume(path, name, properties)
        if fileType == "SegmentationFile" and not path.endswith(".seg.nrrd"):
            labels = self._volumes.AddArchetypeVolume(path, name, 1)
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
            slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, node)
            slicer.mrmlScene.RemoveNode(labels)
            return node
        if fileType not in _NODES:
            return None
        node = slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{_NODES[fileType]}Node", name)
        node.AddDefaultStorageNode(path)
        if not node.GetStorageNode().ReadData(node):
            slicer.mrmlScene.RemoveNode(node)
            return None
        return node

    def _loadVolume(self, path, name, properties):
        flags = {"labelmap": 1, "center": 2, "singleFile": 4, "discardOrientation": 16}
        options = 8 * bool(properties.get("autoWindowLevel", True))
        options += sum(bit for key, bit in flags.items() if properties.get(key))
        node = self._volumes.AddArchetypeVolume(path, name, options)
        if node is not None and properties.get("show", True):
            selection = slicer.app.applicationLogic().GetSelectionNode()
            if properties.get("labelmap"):
                selection.SetActiveLabelVolumeID(node.GetID())
            else:
                selection.SetActiveVolumeID(node.GetID())
            slicer.app.applicationLogic().PropagateVolumeSelection()
        return node

    def saveNodes(self, fileType, properties, _messages=None):
        scene, path = slicer.mrmlScene, str(properties["fileName"])
        if fileType != "SceneFile":
            return self._write(scene.GetNodeByID(properties["nodeID"]), path)
        if path.endswith(".mrb"):
            return bool(scene.WriteToMRB(path))
        if path.endswith(".mrml"):
            scene.SetURL(path)
            scene.SetRootDirectory(os.path.dirname(path))
            return bool(scene.Commit(path))
        os.makedirs(path, exist_ok=True)
        return bool(scene.SaveSceneToSlicerDataBundleDirectory(path))

    def _write(self, node, path):
        node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        return bool(storage.WriteData(node))

    def exportNodes(self, nodeIDs, paths, _properties, hardenTransform, _messages=None):
        if hardenTransform:
            raise NotImplementedError("the bridge exports in the node's own frame only")
        for nodeID, path in zip(nodeIDs, paths, strict=True):
            node = slicer.mrmlScene.GetNodeByID(nodeID)
            storage = node.CreateDefaultStorageNode()
            storage.SetFileName(str(path))
            if not storage.WriteData(node):
                return False
        return True
