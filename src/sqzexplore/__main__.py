"""`python -m sqzexplore`."""

if __name__ == "__main__":  # worker processes, which import this too, do without the verbs
    from .cli import main

    main()
