"""Published layouts of data sets: files in, `listing.Listing` out.

Nothing is imported here: import the module that is needed.
"""
