"""`python -m vidprune` is the same as the `vidprune` command."""

from vidprune.cli import main

if __name__ == "__main__":
    main()
