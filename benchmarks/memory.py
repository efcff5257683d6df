"""Peak memory of a function, measured in a process of its own."""

import concurrent.futures
import multiprocessing


def peak_memory(prepare, *arguments):
    """The resident memory that a function needs at its peak, above a baseline (Linux, CPU).

    Args:
        prepare: function at module level, called with `arguments` in the new process. What it
            leaves resident is the baseline. Returns the function to measure, which has no
            arguments; it runs twice, so that the passing needs of its compilation do not count.
        *arguments: for `prepare`.

    Returns:
        MB (10^6 bytes) above the baseline.
    """
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, prepare, arguments).result()


def _measure(prepare, arguments):
    # Only here: a side of encoder_step.py must not import Keras.
    from timing import to_numpy

    function = prepare(*arguments)
    baseline = resident_megabytes("VmRSS")
    to_numpy(function())
    restart_peak()
    to_numpy(function())
    return resident_megabytes("VmHWM") - baseline


def restart_peak():
    """Forgets the peak so far. `ru_maxrss` cannot, and it counts that of the parent, too."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def resident_megabytes(field):
    """The resident memory of this process: "VmRSS" now, "VmHWM" at its peak."""
    with open("/proc/self/status") as file:
        kilobytes = next(line.split()[1] for line in file if line.startswith(field))
    return int(kilobytes) * 1024 / 1e6
