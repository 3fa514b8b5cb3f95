// Appends every event of one trace port to the buffer in trace.cpp, with the cycle at which it was seen.
module trace_recorder #(
    parameter int SOURCE = 0
) (
    input logic        clk,
    input logic        rst,
    input logic [63:0] cycle,
    input logic        valid,
    input logic [4:0]  kind,
    input logic [3:0]  slot,
    input logic [15:0] pc,
    input logic [15:0] line,
    input logic [31:0] data,
    input logic [31:0] data2
);
    import fluid_dpi::*;

    always_ff @(posedge clk)
        if (valid && !rst)
            trace_event(cycle, 8'(SOURCE), 8'(kind), 8'(slot), 32'(pc), 32'(line), data, data2);

endmodule
