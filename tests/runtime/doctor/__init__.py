"""Each diagnosis is made true, and has to be found."""
