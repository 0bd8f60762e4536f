"""THERIS: thermal-only video, sharper in space and denser in time, with priors of heat conduction."""
