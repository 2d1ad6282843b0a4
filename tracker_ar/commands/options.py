"""What the options that several commands share say of themselves."""

TRACKER = ("--tracker", "--profile")  # the second is its earlier name
TRACKER_HELP = "see `alpharefine trackers` (default: vot2020 where its checkpoints are installed, else lite)"
DEVICE_HELP = "auto, cpu, cuda, ... (default: %(default)s)"
PLAIN_HELP = "run the networks layer by layer in float32, without what makes them fast"
