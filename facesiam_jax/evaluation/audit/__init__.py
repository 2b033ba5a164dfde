"""Comparing data sets: who and what is in two, and what looks mislabelled."""
