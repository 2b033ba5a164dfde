"""Faces in photos: reading files, finding faces and eyes, framing them.

Import the module that is needed: `photo` (files to framed faces), `detect`
(faces and eyes in pixels) or `framing` (pixels and eyes to framed faces). None
of them loads JAX.
"""
