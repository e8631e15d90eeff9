"""`make container-test`: the image and the compose file that people use, in real containers that are lost."""
