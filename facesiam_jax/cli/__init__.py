"""The command line: `facesiam VERB`, one module a verb; see `main`."""
