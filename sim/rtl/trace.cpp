// The buffer behind trace_recorder.sv.
#include "fluid.h"

#include <vector>

static std::vector<TraceRecord> records;

extern "C" {

void trace_event(unsigned long long cycle, unsigned char source, unsigned char kind, unsigned char slot,
                 unsigned pc, unsigned line, unsigned data, unsigned data2) {
    records.push_back({cycle, source, kind, slot, 0, (uint16_t)pc, (uint16_t)line, data, data2});
}

TraceRecord* fluid_trace(uint64_t* count) {
    *count = records.size();
    return records.data();
}

void fluid_trace_clear() { records.clear(); }

}  // extern "C"
