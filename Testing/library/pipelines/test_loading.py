"""Loading of networks."""

import subprocess
import sys

PROGRAM = """
import sys
import torch
from MedGenLib.packages.catalogue import catalogue
from MedGenLib.pipelines.loading import network

networks = [network(model, role, torch.device("cpu")) for model in catalogue() for role in model.networks]
assert not any(parameter.is_meta for net in networks for parameter in net.parameters())
print(len(networks), "torch._dynamo" in sys.modules)
"""


def test_no_embedded_network_loads_the_compiler_of_torch():
    """Its import takes 5 s and longer, which every first run would wait for."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    count, loaded = done.stdout.split()
    assert int(count) > 10 and loaded == "False"
