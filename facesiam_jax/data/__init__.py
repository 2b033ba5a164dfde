"""Data sets and how they reach the device.

Nothing is imported here, because tfds takes seconds to load: import the module
that is needed.
"""
