"""How a recogniser reads its scores by default: which policy, and what it says of it."""

import warnings

WHAT = {
    "nested": "all entities above the threshold are given",
    "flat": "of entities that overlap the best-scored one is given",
    "longest": "of entities that overlap the longest one is given",
}


def choose_policy(recognizer, policy, report):
    """Sets the policy that a recogniser keeps, by its training data where nobody chose one.

    Args:
        recognizer: `EntityRecognizer`.
        policy: str that the user asks for, or None.
        report: `data.Report` of the training data.

    Returns:
        A line for the report.
    """
    overlapping = report.counts["nested"] + report.counts["crossing"]
    why = "as chosen"
    if policy is not None:
        recognizer.policy = policy
    elif recognizer.settings["policy"] is None or recognizer._policy_from_data:
        recognizer.policy = "flat" if report.entities and not overlapping else "nested"
        recognizer._policy_from_data = True
        why = f"{overlapping:,} of {report.entities:,} entities overlap another"
    elif overlapping and recognizer.policy != "nested":
        warnings.warn(
            f"The recogniser keeps the policy {recognizer.policy!r}, which gives no entities that "
            f'overlap; {overlapping} of the training data do. Expected fit(..., policy="nested"), '
            f"or to be told that it is meant. Received: policy=None",
            stacklevel=4,
        )
    return f"policy            {recognizer.policy:>9}   {WHAT[recognizer.policy]} ({why})"


def warn_of_nothing(threshold, stacklevel=3):
    """Warns that nothing scores above a threshold."""
    warnings.warn(
        f"No span scores above the threshold {threshold}, so nothing is predicted, and the F1 is 0. "
        "`best_threshold` of the recogniser finds the best one on validation records; where it "
        "finds none either, the model has to be trained longer.",
        stacklevel=stacklevel,
    )
