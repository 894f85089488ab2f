"""From running text to counted segments: what every learner starts from."""
