"""The panel stays as narrow as Slicer makes it, whatever nodes are called."""

import unittest

import slicer

import support
from support.panelcase import WIDTH, PanelCase


class WidthTest(PanelCase):
    def test_longNamesDoNotWidenThePanel(self):
        host = slicer.modules.medgen.widgetRepresentation()
        host.show()
        self.addCleanup(host.hide)
        for node in (support.headVolume(32), support.hippocampusSegmentation()):
            node.SetName(
                "CT_THORAX_ABDOMEN_PELVIS_VENOUS_1.0_Br38_3_AXIAL_MPR_reconstructed_for_planning_of_the_surgery"
            )
            self.settle()
            self.assertLessEqual(host.minimumSizeHint.width(), WIDTH)


if __name__ == "__main__":
    unittest.main()
