"""Load for the server, and the benchmarks."""
