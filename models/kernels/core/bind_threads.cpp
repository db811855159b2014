// Threads that share calls.
#include <nanobind/stl/vector.h>

#include "arguments.h"
#include "bindings.h"
#include "shared_work.h"

namespace sluice {

void bind_threads(nb::module_ &m) {
    using namespace nb::literals;

    nb::class_<Threads>(m, "Threads")
        .def(
            "__init__",
            [](Threads *self, std::size_t count) {
                // Of those that this process may use, where the system tells.
                const std::size_t most = std::thread::hardware_concurrency();
                if (count == 0 || count > most)
                    reject("count must be 1 to " + std::to_string(most) + ", the processors that there are");
                new (self) Threads(count);
            },
            "count"_a)
        .def_prop_ro("count", &Threads::count)
        .def(
            "shares",
            [](const Threads &threads, nb::handle outputs_) {
                const ChannelList outputs = channel_list(outputs_, "outputs", kMostChannels);
                std::vector<std::size_t> shares = shared_out(outputs.channels, threads.count());
                for (std::size_t i = shares.size(); i-- > 1;) shares[i] -= shares[i - 1];
                return shares;
            },
            "outputs"_a.none());
}

}  // namespace sluice
