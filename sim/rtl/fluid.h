// What the SystemVerilog side (DPI-C), the main programs and Python (sim/rtl_shared.py, through ctypes) share.
// Every struct here has its mirror in sim/rtl_shared.py; fluid_struct_sizes() lets Python check that they agree.
#pragma once

#include <cstdint>

constexpr uint64_t NEVER = ~uint64_t{0};

// Reasons to wake the host; bits of Control::reasons.
enum Reason : uint32_t {
    REASON_IRQ = 1,
    REASON_TIME = 2,
    REASON_OPERATIONS = 4,
    REASON_RESET = 8,
    REASON_WATCHDOG = 16,
    REASON_VIOLATION = 32,
};

struct Control {
    uint64_t cycle;            // number of the present rising edge; 0 is the first edge with rst low
    uint64_t edges;            // rising edges since the simulation began, reset included
    uint64_t alarm;            // wake the host at this cycle
    uint64_t operations_target;  // wake the host when that many operations are complete
    uint64_t operations_done;
    uint64_t watchdog;         // last cycle the host wants to see
    uint64_t wakes;            // edges at which the host was awake
    uint32_t irq_armed;        // wake the host when irq is high
    uint32_t irq;              // level of the interrupt line at the present edge
    uint32_t reset_cycles;     // edges that rst stays high from now on
    uint32_t reasons;          // why the host was woken last
    uint32_t woken;            // set for the main program: run the host after this edge
    uint32_t violations;
    uint32_t aborted;          // the host did not react to the watchdog
    uint32_t reserved;
    char violation[256];       // the first one
};

// One AXI4-Lite transaction. Cycles are those of the handshakes.
struct Operation {
    uint64_t not_before;  // earliest cycle at which the master takes it
    uint64_t issued;
    uint64_t accepted;    // address (and data) taken by the subordinate
    uint64_t done;        // response taken
    uint32_t address;
    uint32_t data;        // written, or read
    uint32_t strobe;
    uint32_t response;
    uint8_t write;
    uint8_t address_delay;   // cycles before the address is shown
    uint8_t data_delay;      // cycles before the write data is shown
    uint8_t response_delay;  // cycles between acceptance and ready for the response
    uint8_t reserved[4];
};

enum StallMode : uint32_t { STALL_NONE, STALL_RANDOM, STALL_SLOW, STALL_BURST };

struct StallSettings {
    uint32_t mode;
    uint32_t probability;  // of 65536
    uint32_t cycles;       // length of a stall
};

struct ErrorWindow {
    uint32_t base;
    uint32_t last;      // address of the last byte
    uint32_t on_read;
    uint32_t on_write;
    uint32_t after;     // bursts that pass before the first error
    uint32_t count;     // errors given; 0: no limit
    uint32_t hits;      // bursts that touched the window so far
    uint32_t enabled;
};

enum Channel { CHANNEL_AR, CHANNEL_R, CHANNEL_AW, CHANNEL_W, CHANNEL_B, CHANNELS };
enum OrderMode : uint32_t { ORDER_IN_ORDER, ORDER_SHUFFLE, ORDER_INTERLEAVE };

struct MemorySettings {
    uint32_t read_latency;      // cycles from the AR to the first R handshake
    uint32_t write_latency;     // cycles from the last W to the B handshake
    uint32_t beats_per_256;     // most beats in 256 cycles, each way; 0: no limit
    uint32_t burst_overhead;    // idle cycles a burst adds to its data channel
    uint32_t read_jitter;       // up to this many random cycles of extra latency
    uint32_t write_jitter;
    uint32_t order;
    uint32_t seed;
    StallSettings stall[CHANNELS];
    ErrorWindow error[8];
};

struct MemoryStatistics {
    uint64_t read_bursts, read_beats, write_bursts, write_beats, written_bytes;
    uint64_t error_bursts;      // answered SLVERR by an error window
    uint64_t beyond_bursts;     // answered DECERR: beyond the end of the memory
    uint64_t most_reads, most_writes;  // in flight at the same time
    uint64_t reads_in_flight, writes_in_flight;
};

struct TraceRecord {
    uint64_t cycle;
    uint8_t port;
    uint8_t kind;
    uint8_t slot;
    uint8_t reserved;
    uint16_t pc;
    uint16_t line;
    uint32_t data;
    uint32_t data2;
};

extern Control control;

extern "C" {
Control* fluid_control();
void fluid_restart(uint32_t reset_cycles);  // reset; at its end operations, trace and statistics are forgotten
uint64_t fluid_submit(const Operation* operation);  // returns its index
Operation* fluid_operations(uint64_t* count);
double fluid_elapsed_seconds();             // since the first operation was taken
int fluid_waves(const char* path, uint64_t first_cycle, uint64_t last_cycle);  // 0: built without tracing

uint8_t* fluid_memory_allocate(uint64_t bytes);  // fresh, zero
uint8_t* fluid_memory(uint64_t* bytes);
uint64_t fluid_memory_checksum();
MemorySettings* fluid_memory_settings();
void fluid_memory_restart();                // settings or seed changed: restart the random generators
MemoryStatistics* fluid_memory_statistics();

TraceRecord* fluid_trace(uint64_t* count);
void fluid_trace_clear();

uint64_t fluid_struct_sizes(uint32_t index);
void host_violation(const char* text);      // also imported by SystemVerilog
}
