"""Values of a sweep for maestrowf."""

from maestrowf.datastructures.core import ParameterGenerator


def get_custom_generator(env, **options):
    """Return the values."""
    points = int(options["points"])
    parameters = ParameterGenerator()
    widths = [8 + 4 * number / (points - 1) for number in range(points)]
    parameters.add_parameter("FWHM_DEG", widths, "FWHM_DEG.%%")
    return parameters
