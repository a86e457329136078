"""The engine: sagas, services and their supervisor as actors; knows no NATS, no files and no clock of its own."""
