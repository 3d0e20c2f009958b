"""Where a study is kept: a journal of the folder, or a database that may go away."""
