"""What `STAR` needs to know of a host, from its own answers on some inputs: scores per place, redundancy per block."""

from vidprune.calibration.averaging import calibrate

__all__ = ["calibrate"]
