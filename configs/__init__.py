"""Training recipes; `facesiam train --config=NAME` finds them by name."""
