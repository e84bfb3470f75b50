"""`python -m relayd`."""

from relayd.cli import main

if __name__ == "__main__":
    main()
