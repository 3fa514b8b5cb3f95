// Functions in C++ (host.cpp, memory.cpp, trace.cpp) that the simulation top calls.
package fluid_dpi;

    import "DPI-C" function void host_violation(input string text);

    // Called at every rising edge. Bit 0: wake the host, bit 1: rst in the next cycle.
    import "DPI-C" function int unsigned host_tick(input bit rst, input longint unsigned cycle, input bit irq);

    // Next AXI4-Lite operation for the master; false if there is none yet.
    import "DPI-C" function bit host_operation(
        input longint unsigned cycle,
        output bit write,
        output int unsigned address,
        output int unsigned data,
        output int unsigned strobe,
        output byte unsigned address_delay,
        output byte unsigned data_delay,
        output byte unsigned response_delay
    );
    import "DPI-C" function void host_operation_done(
        input longint unsigned accepted,
        input longint unsigned cycle,
        input int unsigned data,
        input int unsigned response
    );

    // External memory: one call per handshake, then mem_step once per edge, which tells what to show next.
    import "DPI-C" function void mem_ar(
        input int unsigned id, input int unsigned address, input int unsigned len, input int unsigned size
    );
    import "DPI-C" function void mem_aw(
        input int unsigned id, input int unsigned address, input int unsigned len, input int unsigned size
    );
    import "DPI-C" function void mem_w(input bit [255:0] data, input int unsigned strobe, input bit last);
    import "DPI-C" function longint unsigned mem_step(
        input bit rst, input int unsigned data_bytes, input bit r_taken, input bit b_taken
    );
    import "DPI-C" function void mem_r_data(output bit [255:0] data);

    import "DPI-C" function void trace_event(
        input longint unsigned cycle,
        input byte unsigned source,
        input byte unsigned kind,
        input byte unsigned slot,
        input int unsigned pc,
        input int unsigned line,
        input int unsigned data,
        input int unsigned data2
    );

endpackage
