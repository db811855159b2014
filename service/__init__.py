"""The server: protocol → engine → control, over the models. Telemetry reads the engine, `service.app` composes them."""
