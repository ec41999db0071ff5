"""What ``bridle demo`` is made of: synthetic sounds, the run from sound to codes, and the page that shows it."""
