"""Objectives of a run of pretraining, a file for each; the key `objective` names one."""
