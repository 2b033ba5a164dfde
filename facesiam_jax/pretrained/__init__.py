"""Weights that others have trained: their files in, Flax variables out.

A module a source, each with `SOURCE` (how its network is used) and `read`
(file -> variables); `dlib_file` and `state_dict` below them know the formats.
"""
