"""Where the data sets lie. This is the one file that you edit.

An entry has `train` and `valid`, each either two folders of pictures, `fgr` (RGB) and `pha`
(grey), paired by relative path without the ending, or one folder `rgba` of RGBA pictures.
`backgrounds` has `train` and `valid`, a folder of pictures each; it is used with all data sets
that bring no `backgrounds` of their own, as `demo` does.
"""

DATA_PATH: dict[str, dict] = {
    # Drawn by the program itself on first use, as "demo-large" is: fewer pictures, twice as large.
    "demo": {
        "train": {"fgr": "data/demo/train/fgr", "pha": "data/demo/train/pha"},
        "valid": {"fgr": "data/demo/valid/fgr", "pha": "data/demo/valid/pha"},
        "backgrounds": {
            "train": "data/demo/backgrounds/train",
            "valid": "data/demo/backgrounds/valid",
        },
    },
    "videomatte240k": {
        "train": {
            "fgr": "PATH_TO/VideoMatte240K/train/fgr",
            "pha": "PATH_TO/VideoMatte240K/train/pha",
        },
        "valid": {
            "fgr": "PATH_TO/VideoMatte240K/valid/fgr",
            "pha": "PATH_TO/VideoMatte240K/valid/pha",
        },
    },
    "photomatte13k": {
        "train": {
            "fgr": "PATH_TO/PhotoMatte13K/train/fgr",
            "pha": "PATH_TO/PhotoMatte13K/train/pha",
        },
        "valid": {
            "fgr": "PATH_TO/PhotoMatte13K/valid/fgr",
            "pha": "PATH_TO/PhotoMatte13K/valid/pha",
        },
    },
    "distinction": {
        "train": {
            "fgr": "PATH_TO/Distinctions646/train/fgr",
            "pha": "PATH_TO/Distinctions646/train/pha",
        },
        "valid": {
            "fgr": "PATH_TO/Distinctions646/valid/fgr",
            "pha": "PATH_TO/Distinctions646/valid/pha",
        },
    },
    "adobe": {
        "train": {
            "fgr": "PATH_TO/AdobeImageMatting/train/fgr",
            "pha": "PATH_TO/AdobeImageMatting/train/pha",
        },
        "valid": {
            "fgr": "PATH_TO/AdobeImageMatting/valid/fgr",
            "pha": "PATH_TO/AdobeImageMatting/valid/pha",
        },
    },
    "backgrounds": {
        "train": "PATH_TO/Backgrounds/train",
        "valid": "PATH_TO/Backgrounds/valid",
    },
}
