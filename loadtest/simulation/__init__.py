"""The control code of the server against arrival traces, in virtual time."""
