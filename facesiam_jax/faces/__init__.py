"""Faces in photos: reading files, finding faces, cutting them out.

Import the module that is needed: `photo` (files to aligned faces), `detectors`
(faces in pixels, by any of the detectors), `cutting` (pixels and a face to an
aligned face) or `framing` (the Olivetti framing, by two eyes). Importing them
loads neither JAX nor dlib.
"""
