"""The host's side of the NPU: AXI4-Lite registers, command queue, completion queue, counters."""
