"""lpw_jax.main, but that ResNet-50 has one block in each group, a quarter of its layers.

Where pretrained weights or torchvision's names are the point, and the network's depth is not.
"""

import dataclasses
import runpy

from lpw_jax import registry, report

NAME = "resnet50"
NETWORK = dataclasses.replace(registry.NETWORKS[NAME], arguments={"stage_sizes": (1, 1, 1, 1)})

if __name__ == "__main__":
    report.refresh = lambda *_, **__: None  # its figures take seconds
    registry.NETWORKS[NAME] = NETWORK
    runpy.run_module("lpw_jax.main", run_name="__main__", alter_sys=True)
