"""Words of messages."""


def count(number: int, noun: str) -> str:
    """Return a number and a regular noun: "1 slice", "20,000 slices"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
