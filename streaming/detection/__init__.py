"""From profiles to one calibrated score and its exact parts: detectors, evidence, calibration, models."""
