"""Variant tables of a draft's layers, and the descriptor fields that they become."""

from fluidnpu.hw import isa

from .estimate import VariantTable, choose_variants
from .mapping import weight_beats, words_per_tap
from .operations import Draft

__all__ = ["described", "estimated_tables", "variant_values"]

MAX_STRIPE_LINES = 0xFFFF


def estimated_tables(config, draft: Draft) -> dict[int, VariantTable]:
    """Index of a layer's operation -> its table by the compiler's estimate."""
    return {i: choose_variants(config, draft.operations[i].geometry, draft.longest) for i in draft.layers}


def described(table: VariantTable) -> list:
    """The variants as a descriptor has them: isa.VARIANTS of them, the last one repeated."""
    return [table.variants[min(k, len(table.variants) - 1)] for k in range(isa.VARIANTS)]


def variant_values(config, geometry, table: VariantTable) -> dict[str, int]:
    """Descriptor fields of a table, but for the addresses of weight streams."""
    stripe = geometry.stripe_beats(config)
    values = {}
    for k, v in enumerate(described(table)):
        capacity = (config.bank_beats * config.max_stack >> v.log2_kr) // stripe
        values |= {
            f"log2_kr{k}": v.log2_kr,
            f"log2_kd{k}": v.log2_kd,
            f"max_lines{k}": v.max_lines,
            f"stripe_lines{k}": min(capacity, MAX_STRIPE_LINES),
            f"words{k}": words_per_tap(config, geometry, v.log2_kd),
            f"weight_beats{k}": weight_beats(config, geometry, v),
        }
    selection = table.selection
    values["vsel"] = sum(selection[min(n, len(selection) - 1)] << (2 * n) for n in range(16))
    return values
