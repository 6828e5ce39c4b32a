"""Lets a CPU build of torch run beside the CUDA build of torchvision. Only ever used in the host's environment.

The registry has torchvision as a CUDA build only. Beside a CPU torch its binary part is not loaded, and
`import torchvision` fails with "operator torchvision::nms does not exist", because it attaches a meta
function to an operator that the binary part would have defined. Defining the two schemas just before is
enough; nobody calls them here. A `.pth` file beside this module imports it when Python starts.
"""

import importlib.abc
import sys

_libraries = []  # torch forgets the operators when the Library object goes


class _DefineOperatorsFirst(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _libraries.append(library)
        return None


sys.meta_path.insert(0, _DefineOperatorsFirst())
