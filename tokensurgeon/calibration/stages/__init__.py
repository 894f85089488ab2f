"""The stages of a calibration, one file per family."""
