"""The benchmarks behind `sluice bench`."""
