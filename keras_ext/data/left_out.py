"""The one warning in which a reader says what it knows and did not read."""

import warnings


def warn_left_out(path, counts):
    """Warn of what was left out, if anything was.

    Args:
        path: The file.
        counts: Dictionary what -> how many.
    """
    said = [f"{count} {what}" for what, count in counts.items() if count]
    if said:
        warnings.warn(f"{path}: left out: {', '.join(said)}.", stacklevel=4)
