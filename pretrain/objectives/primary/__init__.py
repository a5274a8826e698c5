"""What a run of pretraining learns: a file for each, named by the key `objective`."""
