"""Training an encoder's network on labelled images."""
