"""What bursts depend on of an address. All in beats.

A run of beats is cut at bursts' and pages' ends. Where no page ends within it, or where it begins with a whole burst,
its address does not matter; so the model keeps 0 instead, which makes states equal that behave alike.
"""

from .state import compiled

__all__ = ["pixels_alike", "runs_alike", "settle"]


@compiled
def runs_alike(m, address, beats, pitches, span, step):
    """Runs of at most ``beats`` are cut alike at ``address``, at multiples of ``step`` from it and at multiples of the
    pitches (or'ed; 0: none) from those. span : from ``address`` to the end of the last one by steps"""
    if not m.burst_beats & (m.burst_beats - 1):
        grain = m.burst_beats
        while grain >= 2 * beats > 0:
            grain >>= 1
        if not (address | pitches | step) & (grain - 1):
            return True
    block = pitches & -pitches
    if block == 0 or block > m.page_beats:
        block = m.page_beats
    return address % block + span <= block


@compiled
def settle(m, address, beats, pitches):
    """The address of a run, or 0 if it does not matter for this run nor for those at multiples of a pitch."""
    return 0 if runs_alike(m, address, beats, pitches, beats, 0) else address % m.page_beats


@compiled
def pixels_alike(m, address, channel_beats, chunk_beats, pixel_beats, line_beats, width, whole_lines):
    """The runs in which chunks of a tensor's pixels are written or read are cut alike on all lines, in all chunks.

    whole_lines : a line is one run if a pixel is one chunk
    """
    if chunk_beats >= pixel_beats:
        run = width * pixel_beats
        return runs_alike(m, address, run, line_beats | (0 if whole_lines else pixel_beats), run, 0)
    run = min(chunk_beats, channel_beats)
    return runs_alike(m, address, run, line_beats | pixel_beats, channel_beats, chunk_beats)
