"""What goes to other programs: files for trainers, a folder to the hub, a projection."""
