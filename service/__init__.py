"""The server: protocol → engine → control over the models; telemetry reads the engine, and `service.app` composes them."""
