"""Which backend is used, and what importing the package costs."""

import subprocess
import sys

from models import kernels
from models.kernels import reference


def python(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_compiled_core_comes_without_torch():
    if kernels.BACKEND == "native":
        assert python("import sys, models.kernels; print('torch' in sys.modules)") == "False"


def test_the_reference_serves_where_there_is_no_core():
    hide = """
import importlib.util as util, sys
find = util.find_spec
util.find_spec = lambda name, *rest: None if name.endswith('_core') else find(name, *rest)
from models import kernels
print(kernels.BACKEND, kernels.instruction_set(), kernels.gated_conv2d.__module__)
"""
    assert python(hide) == "reference torch models.kernels.reference.products"


def test_both_backends_have_the_same_names():
    for name in kernels.__all__:
        if name not in ("BACKEND", "instruction_set"):
            assert hasattr(reference, name)


def test_the_portable_instruction_set_is_always_there():
    if kernels.BACKEND == "native":
        assert kernels.instruction_sets()[-1] == "portable"
    assert kernels.instruction_set() == kernels.instruction_sets()[0]
