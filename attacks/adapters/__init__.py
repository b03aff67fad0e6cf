"""Attacks of other packages under the contract of ours: the same oracle meters them, the same judge decides."""
