"""What every benchmark needs: the stage it plays on, who is compared, how pairs of samples become a ratio."""
