"""The engine: one owner of the queue, the executors and the run-time state of hosted models."""
