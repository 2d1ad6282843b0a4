"""The networks: backbones, target filter, IoU network, neck and mask head. No tracking logic."""
