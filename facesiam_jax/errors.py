"""The one kind of exception that is meant for the user's eyes."""


class UserError(Exception):
  """Bad input, told in one sentence.

  The message names the file, flag or value at fault and the mend. The command
  line prints it on one line of stderr and exits with status 1; a traceback is
  shown only with --verbosity=1. Library code raises it for what a user got
  wrong and `ValueError` for what a programmer got wrong.
  """
