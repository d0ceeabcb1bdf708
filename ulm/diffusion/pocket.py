from ulm.methods.pocket import *  # noqa
from ulm.diffusion.sampling import sample  # noqa
