"""The parts of benchmarks.gpu: each function measures one thing, in a process of its own, and tells
what it finds as it finds it."""
