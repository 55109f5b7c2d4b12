"""Contents: what a document holds, opened in memory and within bounds."""
