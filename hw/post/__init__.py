"""Epilogue: accumulators in, requantised int8 pixels in the staging buffer out."""
