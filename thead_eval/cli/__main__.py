"""`python -m thead_eval.cli` is `theval`."""

from thead_eval.cli import main

if __name__ == "__main__":
    main()
