// The host's side of the NPU: cycle counter, reset, wake-up of the host program and an AXI4-Lite master that
// performs the operations queued in C++ (host.cpp), one at a time and in order.
//
// All of it is one clocked block: an operation that ends at an edge wakes the host at that very edge.
module host #(
    parameter int ADDRESS_WIDTH = 12
) (
    input  logic                     clk,
    output logic                     rst,
    output logic [63:0]              cycle,
    output logic                     wake,
    input  logic                     irq,
    output logic                     awvalid,
    input  logic                     awready,
    output logic [ADDRESS_WIDTH-1:0] awaddr,
    output logic                     wvalid,
    input  logic                     wready,
    output logic [31:0]              wdata,
    output logic [3:0]               wstrb,
    input  logic                     bvalid,
    output logic                     bready,
    input  logic [1:0]               bresp,
    output logic                     arvalid,
    input  logic                     arready,
    output logic [ADDRESS_WIDTH-1:0] araddr,
    input  logic                     rvalid,
    output logic                     rready,
    input  logic [31:0]              rdata,
    input  logic [1:0]               rresp
);
    import fluid_dpi::*;

    initial begin
        rst = 1;
        cycle = 0;
        wake = 0;
    end

    logic busy;  // an operation is under way
    logic write;
    logic address_pending, data_pending;  // not yet shown
    logic [7:0] address_delay, data_delay, response_delay;
    logic [63:0] accepted;

    // The host's half of the AXI rules: a response needs its request first.
    always_ff @(posedge clk)
        if (!rst) begin
            assert (!bvalid || (busy && write && !address_pending && !data_pending && !awvalid && !wvalid))
            else host_violation("axil: B response without a complete write");
            assert (!rvalid || (busy && !write && !address_pending && !arvalid))
            else host_violation("axil: R response without a read");
        end

    always @(posedge clk) begin : work
        automatic bit pending_write;
        automatic int unsigned address, data, strobe, what;
        automatic byte unsigned delay_address, delay_data, delay_response;
        automatic bit free = !busy;
        automatic bit taken;

        if (rst) begin
            busy <= 0;
            awvalid <= 0;
            wvalid <= 0;
            bready <= 0;
            arvalid <= 0;
            rready <= 0;
        end else begin
            if (busy) begin
                taken = 0;
                if (address_pending) begin
                    address_delay <= address_delay - 1;
                    if (address_delay == 0) begin
                        address_pending <= 0;
                        if (write) awvalid <= 1;
                        else arvalid <= 1;
                    end
                end
                if (data_pending) begin
                    data_delay <= data_delay - 1;
                    if (data_delay == 0) begin
                        data_pending <= 0;
                        wvalid <= 1;
                    end
                end
                if (awvalid && awready) begin
                    awvalid <= 0;
                    taken = !data_pending && (!wvalid || wready);
                end
                if (wvalid && wready) begin
                    wvalid <= 0;
                    taken = !address_pending && (!awvalid || awready);
                end
                if (arvalid && arready) begin
                    arvalid <= 0;
                    taken = 1;
                end
                if (taken) begin
                    accepted <= cycle;
                    if (response_delay == 0) begin
                        if (write) bready <= 1;
                        else rready <= 1;
                    end
                end else if (!address_pending && !data_pending && !awvalid && !wvalid && !arvalid
                        && response_delay != 0) begin
                    response_delay <= response_delay - 1;
                    if (response_delay == 1) begin
                        if (write) bready <= 1;
                        else rready <= 1;
                    end
                end
                if (bvalid && bready) begin
                    host_operation_done(accepted, cycle, 0, 32'(bresp));
                    bready <= 0;
                    busy <= 0;
                    free = 1;
                end
                if (rvalid && rready) begin
                    host_operation_done(accepted, cycle, rdata, 32'(rresp));
                    rready <= 0;
                    busy <= 0;
                    free = 1;
                end
            end
            if (free && host_operation(cycle, pending_write, address, data, strobe, delay_address, delay_data,
                    delay_response)) begin
                busy <= 1;
                write <= pending_write;
                awaddr <= ADDRESS_WIDTH'(address);
                araddr <= ADDRESS_WIDTH'(address);
                wdata <= data;
                wstrb <= strobe[3:0];
                awvalid <= pending_write && delay_address == 0;
                arvalid <= !pending_write && delay_address == 0;
                wvalid <= pending_write && delay_data == 0;
                address_pending <= delay_address != 0;
                data_pending <= pending_write && delay_data != 0;
                address_delay <= delay_address - 1;
                data_delay <= delay_data - 1;
                response_delay <= delay_response;
            end
        end

        what = host_tick(rst, cycle, irq);
        cycle <= rst ? 0 : cycle + 1;
        rst <= what[1];
        if (what[0]) wake <= !wake;
    end

endmodule
