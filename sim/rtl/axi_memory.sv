// External memory, an AXI4 subordinate. Pins and protocol checks are here; latency, bandwidth, stalls, errors and
// the bytes themselves are in memory.cpp. All outputs are registers.
module axi_memory #(
    parameter int DATA_BYTES = 16,
    parameter int ID_WIDTH = 3
) (
    input  logic                    clk,
    input  logic                    rst,
    input  logic                    arvalid,
    output logic                    arready,
    input  logic [ID_WIDTH-1:0]     arid,
    input  logic [31:0]             araddr,
    input  logic [7:0]              arlen,
    input  logic [2:0]              arsize,
    input  logic [1:0]              arburst,
    output logic                    rvalid,
    input  logic                    rready,
    output logic [ID_WIDTH-1:0]     rid,
    output logic [8*DATA_BYTES-1:0] rdata,
    output logic [1:0]              rresp,
    output logic                    rlast,
    input  logic                    awvalid,
    output logic                    awready,
    input  logic [ID_WIDTH-1:0]     awid,
    input  logic [31:0]             awaddr,
    input  logic [7:0]              awlen,
    input  logic [2:0]              awsize,
    input  logic [1:0]              awburst,
    input  logic                    wvalid,
    output logic                    wready,
    input  logic [8*DATA_BYTES-1:0] wdata,
    input  logic [DATA_BYTES-1:0]   wstrb,
    input  logic                    wlast,
    output logic                    bvalid,
    input  logic                    bready,
    output logic [ID_WIDTH-1:0]     bid,
    output logic [1:0]              bresp
);
    import fluid_dpi::*;

    localparam int ADDRESS_BITS = ID_WIDTH + 32 + 8 + 3 + 2;

    // --- protocol checks -----------------------------------------------------------------------------------------
    // The position of WLAST is checked in memory.cpp, where data meets its address.

    logic [ADDRESS_BITS-1:0] ar, aw, ar_before, aw_before;
    logic [9*DATA_BYTES:0] w, w_before;
    logic ar_waits, aw_waits, w_waits;  // valid without ready at the last edge

    assign ar = {arid, araddr, arlen, arsize, arburst};
    assign aw = {awid, awaddr, awlen, awsize, awburst};
    assign w = {wdata, wstrb, wlast};

    function automatic bit crosses_4k(input logic [31:0] address, input logic [7:0] len, input logic [2:0] size);
        automatic logic [31:0] start = 32'(address[11:0]) >> size << size;
        return start + ((32'(len) + 1) << size) > 4096;
    endfunction

    always_ff @(posedge clk) begin : checks
        ar_waits <= !rst && arvalid && !arready;
        aw_waits <= !rst && awvalid && !awready;
        w_waits <= !rst && wvalid && !wready;
        if (arvalid) ar_before <= ar;
        if (awvalid) aw_before <= aw;
        if (wvalid) w_before <= w;
        if (!rst) begin
            assert (!ar_waits || (arvalid && ar == ar_before))
            else host_violation("mem: AR changed or fell before it was taken");
            assert (!aw_waits || (awvalid && aw == aw_before))
            else host_violation("mem: AW changed or fell before it was taken");
            assert (!w_waits || (wvalid && w == w_before))
            else host_violation("mem: W changed or fell before it was taken");
            if (arvalid) begin
                assert (arburst == 1) else host_violation("mem: AR burst type is not INCR");
                assert (arlen < 16) else host_violation("mem: AR burst longer than 16 beats");
                assert ((1 << arsize) <= DATA_BYTES) else host_violation("mem: ARSIZE wider than the bus");
                assert (!crosses_4k(araddr, arlen, arsize)) else host_violation("mem: AR burst crosses 4 KB");
            end
            if (awvalid) begin
                assert (awburst == 1) else host_violation("mem: AW burst type is not INCR");
                assert (awlen < 16) else host_violation("mem: AW burst longer than 16 beats");
                assert ((1 << awsize) <= DATA_BYTES) else host_violation("mem: AWSIZE wider than the bus");
                assert (!crosses_4k(awaddr, awlen, awsize)) else host_violation("mem: AW burst crosses 4 KB");
            end
        end
    end

    // --- channels ------------------------------------------------------------------------------------------------

    always_ff @(posedge clk) begin : channels
        automatic longint unsigned show;
        automatic bit [255:0] data;

        if (!rst) begin
            if (arvalid && arready) mem_ar(32'(arid), araddr, 32'(arlen), 32'(arsize));
            if (awvalid && awready) mem_aw(32'(awid), awaddr, 32'(awlen), 32'(awsize));
            if (wvalid && wready) mem_w(256'(wdata), 32'(wstrb), wlast);
        end
        show = mem_step(rst, DATA_BYTES, rvalid && rready, bvalid && bready);
        arready <= show[0];
        awready <= show[1];
        wready <= show[2];
        rvalid <= show[3];
        bvalid <= show[4];
        if (show[5]) begin  // a new read beat
            mem_r_data(data);
            rdata <= data[8*DATA_BYTES-1:0];
            rlast <= show[6];
            rresp <= show[9:8];
            rid <= show[16+:ID_WIDTH];
        end
        if (show[7]) begin  // a new write response
            bresp <= show[11:10];
            bid <= show[24+:ID_WIDTH];
        end
    end

endmodule
