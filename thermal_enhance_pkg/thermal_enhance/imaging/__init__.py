"""Thermal frames and what is done to their values: units, codecs, tone, consistency, geometry, shutter."""
