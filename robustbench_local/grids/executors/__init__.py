"""Ways to have a grid's cells done: in this process, by processes of this machine, by Ray, by Slurm."""
