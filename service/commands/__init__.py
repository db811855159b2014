"""The commands of `sluice`, one file each. `service.cli` puts them together."""
