// Behaviour of the external memory (axi_memory.sv has the pins).
//
// `now` numbers the rising edges. A burst accepted at edge t gives its first beat no earlier than edge
// t + read_latency; a write whose last beat (or address, if later) is accepted at t is answered no earlier than
// t + write_latency. What mem_step shows after edge t can be taken at t + 1.
//
// To make a missing wait visible, the memory is as unhelpful as AXI allows: a read samples its bytes when its address
// is accepted, a write changes the bytes when its response is taken.
#include "fluid.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <vector>

namespace {

constexpr unsigned OKAY = 0, SLVERR = 2, DECERR = 3;
constexpr unsigned MOST_BYTES = 32;  // widest bus
constexpr uint64_t DEFAULT_BYTES = uint64_t{64} << 20;

struct Read {
    unsigned id, size, beats;
    uint64_t ready;  // earliest edge of the first beat
    unsigned next = 0;
    struct Beat {
        uint8_t data[MOST_BYTES];
        unsigned response;
    };
    std::vector<Beat> beat;
};

struct WriteBeat {
    uint8_t data[MOST_BYTES];
    uint32_t strobe;
    bool last;
};

struct Write {
    unsigned id, size, beats;
    uint32_t address;
    unsigned windows = 0;  // error windows that answer it
    unsigned response = OKAY;
    uint64_t ready = NEVER;  // earliest edge of the response; NEVER: data incomplete
    std::vector<WriteBeat> beat;
};

class Random {  // xorshift64*
  public:
    void seed(uint64_t value) {
        state = value * 0x9E3779B97F4A7C15ull + 0xD1B54A32D192ED03ull;
        if (!state) state = 1;
        for (int i = 0; i < 8; ++i) next();
    }
    uint32_t next() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return (state * 0x2545F4914F6CDD1Dull) >> 32;
    }
    uint32_t below(uint32_t bound) { return (uint64_t{next()} * bound) >> 32; }
    bool chance(uint32_t of_65536) { return (next() >> 16) < of_65536; }

  private:
    uint64_t state = 1;
};

MemorySettings settings = {32, 16, 0, 0, 0, 0, ORDER_IN_ORDER, 1, {}, {}};
MemoryStatistics statistics;
uint8_t* bytes = nullptr;
uint64_t size_bytes = 0;
unsigned data_bytes = MOST_BYTES;

uint64_t now = 0;
Random random_source;
uint32_t stalled[CHANNELS];
std::deque<Read> reads;
std::deque<Write> writes;          // addresses accepted, responses not yet taken
std::deque<WriteBeat> early_data;  // beats without their address
bool ar_taken = false, aw_taken = false, w_taken = false;  // at the present edge
bool r_shown = false, b_shown = false, r_last = false;
size_t b_index = 0;
size_t current = 0;           // read burst that is being given (in-order and shuffle)
bool current_open = false;
uint64_t r_start = 0;         // earliest edge of the open burst's first beat
uint64_t w_blocked_until = 0;  // no write data before this edge
uint32_t r_credit = 256, w_credit = 256;
Read::Beat shown;

bool is_stalled(Channel channel, bool transferred) {
    const StallSettings& s = settings.stall[channel];
    uint32_t& left = stalled[channel];
    switch (s.mode) {
    case STALL_NONE: return false;
    case STALL_RANDOM: return random_source.chance(s.probability);
    case STALL_SLOW:
        if (transferred) left = s.cycles;
        break;
    case STALL_BURST:
        if (!left && random_source.chance(s.probability)) left = s.cycles;
        break;
    }
    if (!left) return false;
    --left;
    return true;
}

uint8_t* memory() {
    if (!bytes) fluid_memory_allocate(DEFAULT_BYTES);
    return bytes;
}

// True if this burst is one that an error window answers; marks the windows that do so in `windows`.
bool injects(bool write, uint32_t first, uint32_t last, unsigned& windows) {
    windows = 0;
    for (unsigned i = 0; i < 8; ++i) {
        ErrorWindow& e = settings.error[i];
        if (!e.enabled || !(write ? e.on_write : e.on_read) || last < e.base || first > e.last) continue;
        const uint32_t hit = e.hits++;
        if (hit >= e.after && (!e.count || hit - e.after < e.count)) windows |= 1u << i;
    }
    return windows != 0;
}

bool in_windows(unsigned windows, uint32_t first, uint32_t last) {
    for (unsigned i = 0; i < 8; ++i)
        if (windows >> i & 1 && last >= settings.error[i].base && first <= settings.error[i].last) return true;
    return false;
}

// First and last byte of beat i.
void beat_range(uint32_t address, unsigned size, unsigned i, uint64_t& first, uint64_t& last) {
    const uint64_t step = uint64_t{1} << size;
    const uint64_t start = address / step * step;
    first = i ? start + i * step : address;
    last = start + i * step + step - 1;
}

void sample(Read& r, uint32_t address) {
    uint64_t first, last, end;
    beat_range(address, r.size, 0, first, end);
    beat_range(address, r.size, r.beats - 1, last, end);
    unsigned windows;
    const bool injected = injects(false, address, std::min<uint64_t>(end, ~0u), windows);
    bool beyond = false;
    r.beat.resize(r.beats);
    for (unsigned i = 0; i < r.beats; ++i) {
        Read::Beat& b = r.beat[i];
        beat_range(address, r.size, i, first, last);
        const uint64_t row = first / data_bytes * data_bytes;
        b.response = OKAY;
        if (last >= size_bytes) b.response = DECERR;
        else if (injected && in_windows(windows, first, last)) b.response = SLVERR;
        beyond |= b.response == DECERR;
        if (b.response == OKAY) memcpy(b.data, memory() + row, data_bytes);
        else memset(b.data, 0xEE, data_bytes);  // nobody may use it
    }
    statistics.error_bursts += injected;
    statistics.beyond_bursts += beyond;
}

void match_data() {
    for (Write& w : writes) {
        while (w.beat.size() < w.beats && !early_data.empty()) {
            w.beat.push_back(early_data.front());
            early_data.pop_front();
            if (w.beat.back().last != (w.beat.size() == w.beats))
                host_violation("mem: WLAST is not at the last beat of its burst");
            if (w.beat.size() == w.beats) {
                const uint32_t jitter = settings.write_jitter;
                w.ready = now + settings.write_latency + (jitter ? random_source.below(jitter + 1) : 0);
            }
        }
        if (w.beat.size() < w.beats) break;
    }
}

// Decides the response.
void respond(Write& w) {
    uint64_t first, last;
    beat_range(w.address, w.size, w.beats - 1, first, last);
    const bool injected = injects(true, w.address, std::min<uint64_t>(last, ~0u), w.windows);
    const bool beyond = last >= size_bytes;
    w.response = beyond ? DECERR : injected ? SLVERR : OKAY;
    statistics.error_bursts += injected;
    statistics.beyond_bursts += beyond;
}

// Changes the bytes.
void commit(const Write& w) {
    uint64_t first, last;
    for (unsigned i = 0; i < w.beats; ++i) {
        const WriteBeat& b = w.beat[i];
        beat_range(w.address, w.size, i, first, last);
        if (last >= size_bytes || in_windows(w.windows, first, last)) continue;
        const uint64_t row = first / data_bytes * data_bytes;
        for (unsigned j = 0; j < data_bytes; ++j) {
            if (!(b.strobe >> j & 1)) continue;
            if (row + j < first || row + j > last) {
                host_violation("mem: write strobe outside of the bytes of its beat");
                continue;
            }
            memory()[row + j] = b.data[j];
            ++statistics.written_bytes;
        }
    }
}

// The oldest of its ID; a younger one must wait.
template <class Burst>
bool oldest_of_id(const std::deque<Burst>& queue, size_t index) {
    for (size_t i = 0; i < index; ++i)
        if (queue[i].id == queue[index].id) return false;
    return true;
}

// Index of a burst that may be given at the next edge, by the order setting; -1 if there is none.
template <class Burst>
long choose(const std::deque<Burst>& queue) {
    if (queue.empty()) return -1;
    if (settings.order == ORDER_IN_ORDER) return now + 1 >= queue[0].ready ? 0 : -1;
    std::vector<size_t> candidates;
    for (size_t i = 0; i < queue.size(); ++i)
        if (now + 1 >= queue[i].ready && oldest_of_id(queue, i)) candidates.push_back(i);
    return candidates.empty() ? -1 : (long)candidates[random_source.below(candidates.size())];
}

// Picks the next read beat into `shown`; false if there is none to show yet.
bool next_read_beat(unsigned& id, bool& last) {
    if (!current_open || (settings.order == ORDER_INTERLEAVE && reads[current].next)) {
        const long index = choose(reads);
        if (index < 0) return false;
        if (!current_open || (size_t)index != current) r_start = now + 1 + (reads[index].next ? 0 : settings.burst_overhead);
        current = index;
        current_open = true;
    }
    if (now + 1 < r_start) return false;
    if (settings.beats_per_256) {
        if (r_credit < 256) return false;
        r_credit -= 256;
    }
    Read& r = reads[current];
    shown = r.beat[r.next++];
    id = r.id;
    last = r.next == r.beats;
    return true;
}

}  // namespace

extern "C" {

void mem_ar(unsigned id, unsigned address, unsigned len, unsigned size) {
    Read r;
    r.id = id;
    r.size = size;
    r.beats = len + 1;
    const uint32_t jitter = settings.read_jitter;
    r.ready = now + settings.read_latency + (jitter ? random_source.below(jitter + 1) : 0);
    ar_taken = true;
    memory();
    sample(r, address);
    reads.push_back(std::move(r));
    ++statistics.read_bursts;
    statistics.most_reads = std::max<uint64_t>(statistics.most_reads, reads.size());
}

void mem_aw(unsigned id, unsigned address, unsigned len, unsigned size) {
    Write w;
    w.id = id;
    w.size = size;
    w.beats = len + 1;
    w.address = address;
    aw_taken = true;
    writes.push_back(std::move(w));
    ++statistics.write_bursts;
    statistics.most_writes = std::max<uint64_t>(statistics.most_writes, writes.size());
    match_data();
}

void mem_w(const uint32_t* data, unsigned strobe, unsigned char last) {
    WriteBeat b;
    memcpy(b.data, data, MOST_BYTES);
    b.strobe = strobe;
    b.last = last;
    early_data.push_back(b);
    ++statistics.write_beats;
    w_taken = true;
    if (last) w_blocked_until = now + 1 + settings.burst_overhead;
    match_data();
}

unsigned long long mem_step(unsigned char rst, unsigned bus_bytes, unsigned char r_taken, unsigned char b_taken) {
    uint64_t show = 0;

    data_bytes = bus_bytes;
    if (rst) {
        reads.clear();
        writes.clear();
        early_data.clear();
        r_shown = b_shown = current_open = false;
        r_credit = w_credit = 256;
        w_blocked_until = 0;
        ar_taken = aw_taken = w_taken = false;
        ++now;
        return 0;
    }
    if (r_taken) {
        ++statistics.read_beats;
        r_shown = false;
        if (r_last) {
            reads.erase(reads.begin() + current);
            current_open = false;
        }
    }
    if (b_taken) {
        b_shown = false;
        commit(writes[b_index]);
        writes.erase(writes.begin() + b_index);
    }
    if (settings.beats_per_256) {
        if (r_credit < 256) r_credit += settings.beats_per_256;
        if (w_taken) w_credit -= 256;
        if (w_credit < 256) w_credit += settings.beats_per_256;
    }

    if (!is_stalled(CHANNEL_AR, ar_taken)) show |= 1;
    if (!is_stalled(CHANNEL_AW, aw_taken)) show |= 2;
    const bool w_stalled = is_stalled(CHANNEL_W, w_taken);
    if (!w_stalled && now + 1 >= w_blocked_until && (!settings.beats_per_256 || w_credit >= 256)) show |= 4;

    const bool r_stalled = is_stalled(CHANNEL_R, r_taken);
    if (r_shown) {
        show |= 8;
    } else if (!r_stalled && !reads.empty()) {
        unsigned id;
        if (next_read_beat(id, r_last)) {
            r_shown = true;
            show |= 8 | 32 | uint64_t{r_last} << 6 | uint64_t{shown.response} << 8 | uint64_t{id} << 16;
        }
    }

    const bool b_stalled = is_stalled(CHANNEL_B, b_taken);
    if (b_shown) {
        show |= 16;
    } else if (!b_stalled) {
        const long index = choose(writes);
        if (index >= 0) {
            b_index = index;
            b_shown = true;
            respond(writes[index]);
            show |= 16 | 128 | uint64_t{writes[index].response} << 10 | uint64_t{writes[index].id} << 24;
        }
    }
    statistics.reads_in_flight = reads.size();
    statistics.writes_in_flight = writes.size();
    ar_taken = aw_taken = w_taken = false;
    ++now;
    return show;
}

void mem_r_data(uint32_t* data) { memcpy(data, shown.data, MOST_BYTES); }

uint8_t* fluid_memory_allocate(uint64_t new_bytes) {
    if (bytes) munmap(bytes, size_bytes + MOST_BYTES);
    size_bytes = new_bytes;
    void* p = mmap(nullptr, size_bytes + MOST_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "cannot map %llu bytes of simulated memory\n", (unsigned long long)new_bytes);
        exit(1);
    }
    bytes = static_cast<uint8_t*>(p);
    return bytes;
}

uint8_t* fluid_memory(uint64_t* count) {
    uint8_t* p = memory();
    *count = size_bytes;
    return p;
}

uint64_t fluid_memory_checksum() {  // FNV-1a over 64-bit words
    uint64_t sum = 0xcbf29ce484222325ull;
    const uint64_t* word = reinterpret_cast<const uint64_t*>(memory());
    for (uint64_t i = 0; i < size_bytes / 8; ++i) sum = (sum ^ word[i]) * 0x100000001b3ull;
    return sum;
}

MemorySettings* fluid_memory_settings() { return &settings; }

void fluid_memory_restart() {
    random_source.seed(settings.seed);
    for (uint32_t& left : stalled) left = 0;
    r_credit = w_credit = 256;
}

MemoryStatistics* fluid_memory_statistics() { return &statistics; }

}  // extern "C"
