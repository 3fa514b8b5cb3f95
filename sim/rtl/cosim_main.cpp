// Main program of the co-simulation: makes the clock, and lets VPI (that is cocotb, that is Python) run only when it
// has something to do: the design asked for the host (Control::woken), or a timer of cocotb is due.
//
// It takes the place of cocotb's verilator.cpp, which calls VPI several times per time step. Value-change callbacks
// are looked at only in those steps, so Python may wait for `wake` and for timers, not for other signals.
#include "Vtop.h"
#include "fluid.h"
#include "verilated.h"
#include "verilated_vpi.h"

#include <cstdio>
#include <memory>

#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

extern "C" void vlog_startup_routines_bootstrap(void);

static constexpr uint64_t HALF_PERIOD = 5;  // time units; a cycle is 10
static uint64_t now = 0;
static Vtop* top = nullptr;  // lives as long as main: its destructor needs Verilator's own statics

double sc_time_stamp() { return now; }

#if VM_TRACE
static VerilatedVcdC* waves = nullptr;
static bool waves_linked = false;
static uint64_t waves_first = NEVER, waves_last = 0;

static void dump() {
    if (!waves) return;
    if (control.cycle >= waves_first && control.cycle <= waves_last) {
        waves->dump(now);
    } else if (control.cycle > waves_last) {
        waves->close();
        waves_first = NEVER;
    }
}
#else
static void dump() {}
#endif

extern "C" int fluid_waves(const char* path, uint64_t first_cycle, uint64_t last_cycle) {
#if VM_TRACE
    if (!waves_linked) {
        waves = new VerilatedVcdC;  // never deleted: it would wait for itself at exit
        top->trace(waves, 99);
        waves_linked = true;
    }
    if (waves->isOpen()) waves->close();
    waves->open(path);
    waves_first = first_cycle;
    waves_last = last_cycle;
    return waves->isOpen();
#else
    (void)path, (void)first_cycle, (void)last_cycle;
    return 0;
#endif
}

static bool value_callbacks() {
    bool any = false;
    while (VerilatedVpi::callValueCbs()) any = true;
    return any;
}

// Every callback of the present time step, and evaluation again while they change signals.
static void host_step() {
    bool again = false;
    do {
        do {
            if (again) top->eval_step();
            again = true;
            VerilatedVpi::clearEvalNeeded();
            VerilatedVpi::doInertialPuts();
            value_callbacks();
        } while (VerilatedVpi::evalNeeded());
        VerilatedVpi::callCbs(cbReadWriteSynch);
        VerilatedVpi::doInertialPuts();
        value_callbacks();
    } while (VerilatedVpi::evalNeeded());
    VerilatedVpi::callCbs(cbReadOnlySynch);
}

static bool host_waits_for_this_step() {
    return VerilatedVpi::hasCbs(cbReadWriteSynch) || VerilatedVpi::hasCbs(cbReadOnlySynch)
           || VerilatedVpi::hasCbs(cbNextSimTime);
}

// Run at the start of a time step for timers.
static void host_time() {
    VerilatedVpi::callCbs(cbNextSimTime);
    value_callbacks();
    VerilatedVpi::callTimedCbs();
    value_callbacks();
}

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
#if VM_TRACE
    Verilated::traceEverOn(true);
#endif
    const auto owner = std::make_unique<Vtop>("");
    top = owner.get();
    Verilated::fatalOnVpiError(false);
    Verilated::addExitCb([](void*) { VerilatedVpi::callCbs(cbEndOfSimulation); }, nullptr);

    vlog_startup_routines_bootstrap();
    VerilatedVpi::callCbs(cbStartOfSimulation);
    value_callbacks();
    top->clk = 0;
    top->eval();
    host_step();

    uint64_t next_edge = HALF_PERIOD;
    uint64_t deadline = VerilatedVpi::cbNextDeadline();
    bool host_busy = host_waits_for_this_step();
    while (!Verilated::gotFinish() && !control.aborted) {
        const bool timer = deadline <= next_edge;
        now = timer ? deadline : next_edge;
        const bool host = timer || host_busy;
        if (host) host_time();
        if (now == next_edge) {
            top->clk = !top->clk;
            next_edge += HALF_PERIOD;
        }
        top->eval();
        if (host || control.woken) {
            control.woken = 0;
            host_step();
            deadline = VerilatedVpi::cbNextDeadline();
            host_busy = host_waits_for_this_step();
        }
        dump();
    }
    top->final();
    VerilatedVpi::callCbs(cbEndOfSimulation);
#if VM_TRACE
    if (waves) waves->close();
#endif
    return control.aborted || Verilated::threadContextp()->errorCount() > 0;
}
