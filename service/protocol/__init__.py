"""What goes over the wire: the Open Inference Protocol v2, and errors. Parses and renders, and decides nothing."""
