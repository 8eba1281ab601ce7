"""The parts of an evaluation: each measures one thing of a model, adds its numbers, or says why it cannot."""
