"""Configurations: ranges and their error texts, derived values, hashes."""

from dataclasses import fields, replace

import pytest
from fluidnpu.hw.config import CONFIGS, ConfigError, get_config

TINY = CONFIGS["tiny"]
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=lambda c: c.name)


@every_config
def test_derived_values(config):
    assert config.words_per_beat * config.lanes == config.bus_bytes
    assert config.group_pes * config.max_stack == config.pes
    assert config.bank_beats * config.max_stack * config.bus_bytes == config.bank_bytes
    assert config.stage_beats * config.bus_bytes == config.stage_bytes
    assert config.contexts == config.trackers + 1
    assert config.fragments >= config.slots
    assert config.peak_macs == config.pes * config.lanes
    assert CONFIGS[config.name] is get_config(config.name) is config


POWERS = [f.name for f in fields(TINY) if f.name not in ("name", "trackers")]


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("value", [0, -4, 24])
def test_not_a_power_of_two(name, value):
    with pytest.raises(ConfigError) as error:
        replace(TINY, **{name: value})
    assert str(error.value) == f"tiny: {name} = {value} is not a positive power of two"


LIMITS = {
    "slots": (2, 16),
    "programs": (1, 4),
    "exits": (1, 16),
    "bus_bytes": (8, 32),
    "lanes": (4, 8),
    "pes": (8, 1024),
    "max_stack": (1, 8),
    "post_lanes": (1, 8),
    "burst_beats": (1, 16),
    "reads_in_flight": (4, 64),
    "trackers": (1, 3),
    "completion_entries": (6, 256),
    "weight_fifo_beats": (32, 4096),
    "max_lines": (4, 32),
}
# Values that the limits of other sizes depend on, so that a limit can be met at all.
BESIDE = {"bus_bytes": {"lanes": 8, "post_lanes": 4}, "slots": {"max_lines": 32}}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name):
    low, high = LIMITS[name]
    beside = BESIDE.get(name, {})
    step = (lambda v: v - 1, lambda v: v + 1) if name == "trackers" else (lambda v: v // 2, lambda v: v * 2)
    first = low if name != "completion_entries" else 8  # the next power of two
    for value in (first, high):
        assert getattr(replace(TINY, **beside, **{name: value}), name) == value
    for value in (step[0](first), step[1](high)):
        if name == "trackers" or value >= 1:
            with pytest.raises(ConfigError) as error:
                replace(TINY, **beside, **{name: value})
            assert str(error.value) == f"tiny: {name} = {value} is not within {low}..{high}"


def test_unknown_name():
    with pytest.raises(ConfigError) as error:
        get_config("huge")
    assert str(error.value) == "unknown configuration 'huge'; there are tiny, ecp5, gemmini16, edge, hub"


def test_hash_sees_every_size_but_not_the_name():
    assert replace(TINY, name="other").hash == TINY.hash
    assert len({c.hash for c in CONFIGS.values()}) == len(CONFIGS)
    edge = CONFIGS["edge"]
    others = {"trackers": 2, "bus_bytes": 32}
    for f in fields(edge):
        if f.name != "name":
            value = others.get(f.name, getattr(edge, f.name) // 2)
            assert replace(edge, **{f.name: value}).hash != edge.hash, f.name
    assert all(0 <= c.hash < 1 << 32 for c in CONFIGS.values())


@every_config
def test_unstackable(config):
    single = config.unstackable()
    assert (single.name, single.max_stack, single.group_pes) == (f"{config.name}-max1", 1, config.pes)
    assert replace(single, name=config.name, max_stack=config.max_stack) == config
