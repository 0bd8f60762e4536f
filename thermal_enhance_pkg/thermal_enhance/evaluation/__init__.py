"""Measuring the suite: folder and bag evaluation, reports, and the benchmarks of `thermal-enhance bench`."""
