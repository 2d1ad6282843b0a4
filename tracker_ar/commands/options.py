"""What the options that several commands share say of themselves."""

PROFILE_HELP = "default: vot2020 where the authors' checkpoints are installed, else lite"
DEVICE_HELP = "auto, cpu, cuda, ... (default: %(default)s)"
PLAIN_HELP = "run the networks layer by layer in float32, without what makes them fast"
