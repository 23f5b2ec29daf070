"""The tests of vit-edge."""
