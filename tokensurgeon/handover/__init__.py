"""What goes to other programs: a finished folder to the hub, a projection to trainers."""
