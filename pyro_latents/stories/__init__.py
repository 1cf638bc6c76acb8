"""Stories: numbers that build the parts of a training, one module or folder a story."""
