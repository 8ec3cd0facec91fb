"""What options choose from and networks are made of, said once.

It imports nothing, so that --help can list it at once.
"""

BACKBONES = ("resnet50", "resnet101", "mobilenetv2")
OUTPUTS = ("pha", "fgr", "err", "hid")  # of the base network, in the order of its channels
REFINED_OUTPUTS = ("pha", "fgr", "pha_sm", "fgr_sm", "err_sm", "ref_sm")  # of MattingRefine
TYPES = ("pha", "fgr", "com", "err")  # of pictures that a prediction writes
REFINED_TYPES = (*TYPES, "ref")  # by a network with a refiner
REFINE_MODES = ("sampling", "thresholding", "full")
KERNEL_SIZES = (3, 1)  # of the refiner
SPLITS = ("train", "valid")  # of a data set

# What each refine mode makes use of beside the coarse size: a setting of MattingRefine by its name.
OF_MODES = {"sampling": "refine_sample_pixels", "thresholding": "refine_threshold"}
