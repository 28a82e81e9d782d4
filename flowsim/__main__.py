"""``python -m flowsim`` is the command line."""

from flowsim.cli import main

main()
