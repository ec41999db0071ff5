"""What is computed for a whole corpus: codes and features."""
