"""``python -m terrarium``: the command line, where the script is not on the path."""

from terrarium.cli import main

if __name__ == "__main__":  # worker processes import this module, too
    main()
