// Cycle count, wake-up of the host, the queue of AXI4-Lite operations and the record of protocol violations.
#include "fluid.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <vector>

Control control = {0, 0, NEVER, NEVER, 0, NEVER, 0, 0, 0, 4, 0, 0, 0, 0, 0, {0}};

namespace {

using Clock = std::chrono::steady_clock;

// A host that sleeps on something else than the bench would never see the watchdog: stop for it.
constexpr uint64_t WATCHDOG_GRACE = 100000;

std::vector<Operation> operations;
uint64_t next_operation = 0;
Clock::time_point begin;
bool violation_reported = false;

// A new life of the design: what the last one left behind is gone.
void begin_life() {
    operations.clear();
    next_operation = 0;
    control.operations_done = 0;
    control.violations = 0;
    control.violation[0] = 0;
    control.wakes = 0;
    violation_reported = false;
    fluid_trace_clear();
    fluid_memory_restart();
    memset(fluid_memory_statistics(), 0, sizeof(MemoryStatistics));
}

void disarm() {
    control.alarm = NEVER;
    control.operations_target = NEVER;
    control.irq_armed = 0;
}

}  // namespace

extern "C" {

unsigned host_tick(unsigned char rst, unsigned long long cycle, unsigned char irq) {
    Control& c = control;
    c.cycle = cycle;
    c.irq = irq;
    ++c.edges;
    uint32_t reasons = 0;
    uint32_t next_rst = 0;
    if (c.reset_cycles) {
        next_rst = 1;
        --c.reset_cycles;
    } else if (rst) {
        reasons |= REASON_RESET;
        begin_life();
    } else {
        if (irq && c.irq_armed) reasons |= REASON_IRQ;
        if (cycle >= c.alarm) reasons |= REASON_TIME;
        if (c.operations_done >= c.operations_target) reasons |= REASON_OPERATIONS;
        if (cycle >= c.watchdog) {
            if (cycle == c.watchdog) reasons |= REASON_WATCHDOG;
            if (cycle - c.watchdog > WATCHDOG_GRACE) {
                fprintf(stderr, "watchdog: cycle %llu and the host does not stop\n", cycle);
                c.aborted = 1;
                c.woken = 1;
            }
        }
    }
    if (c.violations && !violation_reported) {
        reasons |= REASON_VIOLATION;
        violation_reported = true;
    }
    if (!reasons) return next_rst << 1;
    disarm();
    c.reasons = reasons;
    c.woken = 1;
    ++c.wakes;
    return 1 | next_rst << 1;
}

unsigned char host_operation(unsigned long long cycle, unsigned char* write, unsigned* address, unsigned* data,
                             unsigned* strobe, unsigned char* address_delay, unsigned char* data_delay,
                             unsigned char* response_delay) {
    if (next_operation == operations.size()) return 0;
    Operation& o = operations[next_operation];
    if (cycle < o.not_before) return 0;
    if (next_operation++ == 0) begin = Clock::now();
    o.issued = cycle;
    *write = o.write;
    *address = o.address;
    *data = o.data;
    *strobe = o.strobe;
    *address_delay = o.address_delay;
    *data_delay = o.data_delay;
    *response_delay = o.response_delay;
    return 1;
}

void host_operation_done(unsigned long long accepted, unsigned long long cycle, unsigned data, unsigned response) {
    Operation& o = operations[control.operations_done++];
    o.accepted = accepted;
    o.done = cycle;
    if (!o.write) o.data = data;
    o.response = response;
}

void host_violation(const char* text) {
    fprintf(stderr, "cycle %llu: protocol violation: %s\n", (unsigned long long)control.cycle, text);
    if (control.violations++) return;
    snprintf(control.violation, sizeof control.violation, "cycle %llu: %s", (unsigned long long)control.cycle,
             text);
}

Control* fluid_control() { return &control; }

void fluid_restart(uint32_t reset_cycles) {
    disarm();
    control.watchdog = NEVER;
    control.reset_cycles = reset_cycles;
}

uint64_t fluid_submit(const Operation* operation) {
    operations.push_back(*operation);
    return operations.size() - 1;
}

Operation* fluid_operations(uint64_t* count) {
    *count = operations.size();
    return operations.data();
}

double fluid_elapsed_seconds() { return std::chrono::duration<double>(Clock::now() - begin).count(); }

uint64_t fluid_struct_sizes(uint32_t index) {
    const uint64_t sizes[] = {sizeof(Control),        sizeof(Operation),        sizeof(TraceRecord),
                              sizeof(MemorySettings), sizeof(MemoryStatistics)};
    return index < sizeof sizes / sizeof *sizes ? sizes[index] : 0;
}

}  // extern "C"
