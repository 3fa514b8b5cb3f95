// The same design, memory and clock without VPI and Python, for comparison of speed: replays a recording of
// sim/speed.py (memory image, host operations and host writes into memory, with their cycles) and prints what it did as
// JSON.
#include "Vtop.h"
#include "fluid.h"
#include "verilated.h"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <ctime>
#include <memory>
#include <vector>

double sc_time_stamp() { return control.edges * 10.0; }

// Header of a recording; settings, pages (uint64 address, then 4096 bytes each), operations and writes follow.
struct Recording {
    uint64_t magic;
    uint64_t memory_bytes;
    uint64_t pages;
    uint64_t operations;
    uint64_t writes;
    uint64_t last_cycle;
    uint64_t reset_cycles;
};
static constexpr uint64_t MAGIC = 0x32434552444c4655;  // "UFLDREC2"
static constexpr uint64_t PAGE = 4096;

// What the host wrote into memory in this cycle; in the file cycle, address, number of bytes, bytes.
struct Write {
    uint64_t cycle;
    uint64_t address;
    std::vector<uint8_t> content;
};

static bool load(const char* path, Recording& r, std::vector<Operation>& operations, std::vector<Write>& writes) {
    FILE* f = fopen(path, "rb");
    if (!f) return false;
    bool good = fread(&r, sizeof r, 1, f) == 1 && r.magic == MAGIC
                && fread(fluid_memory_settings(), sizeof(MemorySettings), 1, f) == 1;
    if (good) {
        uint8_t* memory = fluid_memory_allocate(r.memory_bytes);
        for (uint64_t i = 0; good && i < r.pages; ++i) {
            uint64_t address;
            good = fread(&address, sizeof address, 1, f) == 1 && address + PAGE <= r.memory_bytes
                   && fread(memory + address, PAGE, 1, f) == 1;
        }
    }
    operations.resize(good ? r.operations : 0);
    good = good && fread(operations.data(), sizeof(Operation), operations.size(), f) == operations.size();
    writes.resize(good ? r.writes : 0);
    for (Write& w : writes) {
        uint64_t head[3];
        good = good && fread(head, sizeof head, 1, f) == 1 && head[1] + head[2] <= r.memory_bytes;
        if (!good) break;
        w = Write{head[0], head[1], std::vector<uint8_t>(head[2])};
        good = fread(w.content.data(), 1, head[2], f) == head[2];
    }
    fclose(f);
    return good;
}

int main(int argc, char** argv) {
    Verilated::commandArgs(argc, argv);
    Recording recording;
    std::vector<Operation> operations;
    std::vector<Write> writes;
    if (argc != 2 || !load(argv[1], recording, operations, writes)) {
        fprintf(stderr, "usage: %s RECORDING (written by fluidnpu.sim.speed)\n", argv[0]);
        return 2;
    }
    const auto top = std::make_unique<Vtop>("");
    fluid_restart(recording.reset_cycles);
    top->clk = 0;
    top->eval();
    while (!control.woken) {  // until the end of reset
        top->clk = !top->clk;
        top->eval();
    }
    for (Operation& o : operations) {
        o.not_before = o.issued;
        fluid_submit(&o);
    }
    const std::clock_t begin = std::clock();
    const uint64_t end = recording.last_cycle;
    uint64_t count;
    uint8_t* memory = fluid_memory(&count);
    auto next = writes.begin();
    const auto write_memory = [&] {
        for (; next != writes.end() && next->cycle <= control.cycle; ++next)
            std::copy(next->content.begin(), next->content.end(), memory + next->address);
    };
    while (!Verilated::gotFinish() && control.cycle < end) {
        write_memory();
        top->clk = 1;
        top->eval();
        top->clk = 0;
        top->eval();
    }
    const double seconds = static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
    write_memory();  // in the last cycle
    uint64_t late = 0;
    const Operation* done = fluid_operations(&count);
    for (uint64_t i = 0; i < count; ++i) late += done[i].done != operations[i].done;
    uint64_t events;
    fluid_trace(&events);
    const uint64_t first = count ? done[0].issued : 0;
    printf("{\"cycles\": %llu, \"seconds\": %.6f, \"checksum\": \"%016llx\", \"late_operations\": %llu, "
           "\"events\": %llu, \"violations\": %u}\n",
           (unsigned long long)(control.cycle - first), seconds, (unsigned long long)fluid_memory_checksum(), (unsigned long long)late,
           (unsigned long long)events, control.violations);
    top->final();
    return 0;
}
