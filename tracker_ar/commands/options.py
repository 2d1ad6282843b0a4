"""What the options that several commands share say of themselves."""

TRACKER = ("--tracker", "--profile")  # the second is its earlier name
TRACKER_HELP = "a name of `alpharefine trackers` (default: vot2020 where its weights are installed, else lite)"
DEVICE_HELP = "auto, cpu, cuda, ... (default: %(default)s)"
PLAIN_HELP = "run the networks as they are trained, layer by layer in float32, without optimisations"
