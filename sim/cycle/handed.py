"""A memo handed to compiled code as one array: where its arrays are. (Of each array that Python hands over numba makes
a record of its own, 0.3 us for each; a memo has more than forty, and a host calls for every register it accesses.)"""

import numpy as np
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from .chains import Chains
from .interned import Store
from .segments import Memo
from .shapes import Shapes
from .state import compiled, part

__all__ = ["memo_at", "places_of"]


def _arrays(vectors):
    for v in vectors:
        if isinstance(v, tuple):
            yield from _arrays(v)
        else:
            yield v


def places_of(memo):
    """int64 [arrays, 3]: address, rows, columns of a memo's arrays, in order; whoever uses it keeps the memo."""
    arrays = list(_arrays(memo))
    assert all(a.flags.c_contiguous for a in arrays)
    return np.array([(a.ctypes.data, a.shape[0], a.shape[-1]) for a in arrays], np.int64)


@intrinsic
def _pointer(_typing, address):
    def generate(_context, builder, _signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@compiled
def _vector(places, i):
    return carray(_pointer(places[i, 0]), (places[i, 1],), np.int32)


@compiled
def _vector64(places, i):
    return carray(_pointer(places[i, 0]), (places[i, 1],), np.int64)


@compiled
def _rows(places, i):
    return carray(_pointer(places[i, 0]), (places[i, 1], places[i, 2]), np.int32)


@compiled
def _rows64(places, i):
    return carray(_pointer(places[i, 0]), (places[i, 1], places[i, 2]), np.int64)


@compiled
def _store(places, i):
    return Store(_vector(places, i), _rows64(places, i + 1), _vector(places, i + 2), _vector64(places, i + 3))


@part
def memo_at(places):
    """The memo of `places_of`."""
    return Memo(
        _store(places, 0),
        _store(places, 4),
        _store(places, 8),
        Shapes(_store(places, 12), _rows(places, 16), _vector(places, 17)),
        _rows(places, 18),
        _rows64(places, 19),
        _vector(places, 20),
        _vector(places, 21),
        _rows(places, 22),
        _vector64(places, 23),
        _vector64(places, 24),
        _vector64(places, 25),
        _vector(places, 26),
        Chains(
            _store(places, 27),
            _rows(places, 31),
            _vector(places, 32),
            _rows(places, 33),
            _rows64(places, 34),
            _vector(places, 35),
        ),
    )
