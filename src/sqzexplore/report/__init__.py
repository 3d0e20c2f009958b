"""One self-contained HTML file that says what a sweep asked, found, and how to repeat it."""
