// Simulation top: the NPU, its external memory, the host's bus master and the trace recorders.
// The main program (cosim_main.cpp or bare_main.cpp) drives clk; `wake` changes when the host has something to do.
module fluidnpu_top #(
    parameter int DATA_BYTES = 16,
    parameter int ID_WIDTH = 3,
    parameter int ADDRESS_WIDTH = 12
) (
    input  logic clk,
    output logic wake
);
    logic rst, irq;
    logic [63:0] cycle;

    // AXI4-Lite
    logic awvalid, awready, wvalid, wready, bvalid, bready, arvalid, arready, rvalid, rready;
    logic [ADDRESS_WIDTH-1:0] awaddr, araddr;
    logic [31:0] wdata, rdata;
    logic [3:0] wstrb;
    logic [1:0] bresp, rresp;

    // AXI4
    logic mem_arvalid, mem_arready, mem_rvalid, mem_rready, mem_rlast;
    logic mem_awvalid, mem_awready, mem_wvalid, mem_wready, mem_wlast, mem_bvalid, mem_bready;
    logic [ID_WIDTH-1:0] mem_arid, mem_rid, mem_awid, mem_bid;
    logic [31:0] mem_araddr, mem_awaddr;
    logic [7:0] mem_arlen, mem_awlen;
    logic [2:0] mem_arsize, mem_awsize;
    logic [1:0] mem_arburst, mem_awburst, mem_rresp, mem_bresp;
    logic [8*DATA_BYTES-1:0] mem_rdata, mem_wdata;
    logic [DATA_BYTES-1:0] mem_wstrb;

    // Traces: 0 engine, 1 array
    logic trace_valid[2];
    logic [4:0] trace_kind[2];
    logic [3:0] trace_slot[2];
    logic [15:0] trace_pc[2], trace_line[2];
    logic [31:0] trace_data[2], trace_data2[2];

    host #(.ADDRESS_WIDTH(ADDRESS_WIDTH)) host_side (.*);

    npu dut (
        .clk(clk),
        .rst(rst),
        .irq(irq),
        .axil__awvalid(awvalid),
        .axil__awready(awready),
        .axil__awaddr(awaddr),
        .axil__wvalid(wvalid),
        .axil__wready(wready),
        .axil__wdata(wdata),
        .axil__wstrb(wstrb),
        .axil__bvalid(bvalid),
        .axil__bready(bready),
        .axil__bresp(bresp),
        .axil__arvalid(arvalid),
        .axil__arready(arready),
        .axil__araddr(araddr),
        .axil__rvalid(rvalid),
        .axil__rready(rready),
        .axil__rdata(rdata),
        .axil__rresp(rresp),
        .mem__arvalid(mem_arvalid),
        .mem__arready(mem_arready),
        .mem__arid(mem_arid),
        .mem__araddr(mem_araddr),
        .mem__arlen(mem_arlen),
        .mem__arsize(mem_arsize),
        .mem__arburst(mem_arburst),
        .mem__rvalid(mem_rvalid),
        .mem__rready(mem_rready),
        .mem__rid(mem_rid),
        .mem__rdata(mem_rdata),
        .mem__rresp(mem_rresp),
        .mem__rlast(mem_rlast),
        .mem__awvalid(mem_awvalid),
        .mem__awready(mem_awready),
        .mem__awid(mem_awid),
        .mem__awaddr(mem_awaddr),
        .mem__awlen(mem_awlen),
        .mem__awsize(mem_awsize),
        .mem__awburst(mem_awburst),
        .mem__wvalid(mem_wvalid),
        .mem__wready(mem_wready),
        .mem__wdata(mem_wdata),
        .mem__wstrb(mem_wstrb),
        .mem__wlast(mem_wlast),
        .mem__bvalid(mem_bvalid),
        .mem__bready(mem_bready),
        .mem__bid(mem_bid),
        .mem__bresp(mem_bresp),
        .trace_engine__valid(trace_valid[0]),
        .trace_engine__kind(trace_kind[0]),
        .trace_engine__slot(trace_slot[0]),
        .trace_engine__pc(trace_pc[0]),
        .trace_engine__line(trace_line[0]),
        .trace_engine__data(trace_data[0]),
        .trace_engine__data2(trace_data2[0]),
        .trace_array__valid(trace_valid[1]),
        .trace_array__kind(trace_kind[1]),
        .trace_array__slot(trace_slot[1]),
        .trace_array__pc(trace_pc[1]),
        .trace_array__line(trace_line[1]),
        .trace_array__data(trace_data[1]),
        .trace_array__data2(trace_data2[1])
    );

    axi_memory #(
        .DATA_BYTES(DATA_BYTES),
        .ID_WIDTH(ID_WIDTH)
    ) memory (
        .clk(clk),
        .rst(rst),
        .arvalid(mem_arvalid),
        .arready(mem_arready),
        .arid(mem_arid),
        .araddr(mem_araddr),
        .arlen(mem_arlen),
        .arsize(mem_arsize),
        .arburst(mem_arburst),
        .rvalid(mem_rvalid),
        .rready(mem_rready),
        .rid(mem_rid),
        .rdata(mem_rdata),
        .rresp(mem_rresp),
        .rlast(mem_rlast),
        .awvalid(mem_awvalid),
        .awready(mem_awready),
        .awid(mem_awid),
        .awaddr(mem_awaddr),
        .awlen(mem_awlen),
        .awsize(mem_awsize),
        .awburst(mem_awburst),
        .wvalid(mem_wvalid),
        .wready(mem_wready),
        .wdata(mem_wdata),
        .wstrb(mem_wstrb),
        .wlast(mem_wlast),
        .bvalid(mem_bvalid),
        .bready(mem_bready),
        .bid(mem_bid),
        .bresp(mem_bresp)
    );

    for (genvar i = 0; i < 2; i++) begin : recorders
        trace_recorder #(.SOURCE(i)) recorder (
            .clk(clk),
            .rst(rst),
            .cycle(cycle),
            .valid(trace_valid[i]),
            .kind(trace_kind[i]),
            .slot(trace_slot[i]),
            .pc(trace_pc[i]),
            .line(trace_line[i]),
            .data(trace_data[i]),
            .data2(trace_data2[i])
        );
    end

endmodule
