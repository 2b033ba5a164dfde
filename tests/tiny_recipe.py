"""The tiny config as a recipe, for tests of the command line."""

import tiny


def get_config():
  return tiny.config("supcon", ema_decay=0.9)
