"""What each --mode does."""
