"""What a model may say of its own work."""

from models.model import GateContext


def check_counts(context: GateContext) -> None:
    """Raises `ValueError` for numbers that cannot be: they would stay in what control has learned, long after the
    request."""
    if not 0 <= context.macs_skipped <= context.macs:
        raise ValueError(f"it counted {context.macs_skipped} skipped of {context.macs} multiply-accumulates")
