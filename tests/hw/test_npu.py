"""The whole NPU elaborates in every configuration, with and without stacking, and keeps its ports."""

import pytest
from amaranth.back import rtlil
from fluidnpu.hw.config import CONFIGS
from fluidnpu.hw.npu import Npu


@pytest.mark.parametrize("name", CONFIGS)
def test_elaborates(name):
    text = rtlil.convert(Npu(CONFIGS[name]), name="npu", emit_src=False)
    assert "module \\npu" in text


def test_elaborates_without_stacking():
    assert "module \\npu" in rtlil.convert(Npu(CONFIGS["tiny"].unstackable()), name="npu", emit_src=False)
