"""Catalogue of the data sets of bodies, birds, toys and house numbers: words only, see :class:`Source`."""

from __future__ import annotations

from ulm.datasets.real.base import Source


def _reader(module: str) -> tuple[tuple[str, str], tuple[str, str]]:
    place = f"ulm.datasets.real.{module}"
    return (place, module), (place, "check")


def _source(name: str, **words: str | int | tuple[str, ...]) -> Source:
    loader, checker = _reader(name)
    return Source(name=name, loader=loader, checker=checker, **words)


BBCPOSE = _source(
    "bbcpose",
    title="BBC-Pose",
    standin="procedural:signers",
    landmarks=7,
    licence="research use; see the distributor's agreement",
    access="on request, with a password",
    site="the sign-language pose page of the Visual Geometry Group, Oxford",
    splits="videos 1-10, 11-15, 16-20; 1,000 test frames",
    normaliser="image",
    citation="Charles, Pfister, Everingham, Zisserman: Automatic and Efficient Human Pose Estimation for Sign Language "
    "Videos. IJCV 2014",
    layout=("code/bbcpose.mat", "code/results.mat", "1", "20"),
)

HUMAN36M = _source(
    "human36m",
    title="Human3.6M",
    standin="procedural:people",
    landmarks=32,
    licence="academic use; no redistribution",
    access="registration",
    site="vision.imar.ro/human3.6m",
    splits="S1, S5-S9 to train, S11 to test, six actions: 796,648 / 87,975 (simplified); 159,444 / 17,615 (h36m-fetch)",
    normaliser="image",
    citation="Ionescu, Papava, Olaru, Sminchisescu: Human3.6M. TPAMI 2014; protocol of Zhang et al., CVPR 2018",
    layout=("S1", "S11"),
)

TAICHI = _source(
    "taichi",
    title="Tai-Chi-HD",
    standin="procedural:exercise",
    landmarks=18,
    licence="videos belong to their uploaders; research use",
    access="videos by YouTube identifiers, many of which are gone; landmarks with the motion co-segmentation code",
    site="GitHub, AliaksandrSiarohin/video-preprocessing and motion-cosegmentation",
    splits="5,000 / 300 labelled frames; 3,049 / 285 videos",
    normaliser="image",
    citation="Siarohin et al.: First Order Motion Model for Image Animation. NeurIPS 2019",
    layout=(
        "landmark/taichi_train_gt.pkl",
        "landmark/taichi_test_gt.pkl",
        "eval_images/taichi-256/train",
        "eval_images/taichi-256/test",
    ),
)

DEEPFASHION = _source(
    "deepfashion",
    title="DeepFashion (in-shop, full body)",
    standin="procedural:fashion",
    landmarks=17,
    licence="non-commercial research",
    access="password by agreement; the lists and AlphaPose landmarks with the code of Lorenz et al.'s reproduction",
    site="the DeepFashion page of the Multimedia Laboratory, CUHK (In-shop Clothes Retrieval, img.zip)",
    splits="10,604 / 1,179",
    normaliser="image",
    citation="Liu, Luo, Qiu, Wang, Tang: DeepFashion. CVPR 2016; lists of Lorenz et al., CVPR 2019",
    layout=("data_train.csv", "data_test.csv", "data_train.json", "data_test.json", "img or images"),
)

CUB = _source(
    "cub",
    title="Caltech-UCSD Birds-200-2011",
    standin="procedural:birds",
    landmarks=15,
    licence="non-commercial research",
    access="open download; the cleaned annotation with the code of CMR",
    site="the Caltech-UCSD Birds page (CUB_200_2011.tgz); GitHub, akanazawa/cmr (cachedir.tar.gz)",
    splits="5,994 / 5,794 official; 5,964 / 2,874 of CMR's cleaned annotation",
    normaliser="image",
    citation="Wah, Branson, Welinder, Perona, Belongie: The Caltech-UCSD Birds-200-2011 Dataset. 2011; cleaned by "
    "Kanazawa et al., ECCV 2018",
    layout=("images", "images.txt", "bounding_boxes.txt", "train_test_split.txt", "parts/part_locs.txt"),
)

SMALLNORB = _source(
    "smallnorb",
    title="smallNORB",
    standin="procedural:toys",
    landmarks=0,
    licence="research use",
    access="open download",
    site="the NORB page of Yann LeCun, New York University (gunzip the six files)",
    splits="24,300 / 24,300 stereo pairs",
    normaliser="image",
    citation="LeCun, Huang, Bottou: Learning Methods for Generic Object Recognition with Invariance to Pose and "
    "Lighting. CVPR 2004",
    layout=tuple(f"*{split}*{kind}.mat" for split in ("training", "testing") for kind in ("dat", "cat", "info")),
)

SVHN = _source(
    "svhn",
    title="Street View House Numbers, format 1",
    standin="procedural:house-numbers",
    landmarks=0,
    licence="non-commercial use",
    access="open download",
    site="ufldl.stanford.edu/housenumbers (Format 1: train.tar.gz, test.tar.gz, extra.tar.gz)",
    splits="33,402 / 13,068 / 202,353 (extra) pictures",
    normaliser="image",
    citation="Netzer, Wang, Coates, Bissacco, Wu, Ng: Reading Digits in Natural Images with Unsupervised Feature "
    "Learning. NIPS Workshop 2011",
    layout=("train/digitStruct.mat", "test/digitStruct.mat"),
)

MPII = _source(
    "mpii",
    title="MPII Human Pose",
    standin="procedural:people",
    landmarks=16,
    licence="simplified BSD",
    access="open download",
    site="the MPII Human Pose page of the Max Planck Institute for Informatics (images, annotation v1_u12_2)",
    splits="24,984 pictures, more than 40,000 people; the joints of the test people are not public",
    normaliser="box",
    citation="Andriluka, Pishchulin, Gehler, Schiele: 2D Human Pose Estimation. CVPR 2014",
    layout=("images", "mpii_human_pose_v1_u12_*.mat or mpii_human_pose_v1_u12_*/mpii_human_pose_v1_u12_*.mat"),
)

SOURCES = (BBCPOSE, HUMAN36M, TAICHI, DEEPFASHION, CUB, SMALLNORB, SVHN, MPII)
